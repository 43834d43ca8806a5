"""The smallest run of the real trainer: a network of 40 thousand weights on random pictures."""

from pathlib import Path

import torch

from ltr_ext.models.network import TrackingNetwork
from ltr_ext.models.registry import build_network
from ltr_ext.recipe import Recipe
from ltr_ext.trainers.preparation import prepare
from ltr_ext.trainers.processes import Processes
from ltr_ext.trainers.trainer import Trainer
from srft_plugin.tuning.regularizer import make_regularizer
from srft_plugin.tuning.trainable import select_trainable

CPU = torch.device("cpu")
RECIPE = Recipe(
    "two_branch_tiny", ("synthetic_rgbd",), base=None, regularizer="none", epochs=2,
    samples_per_epoch=12, batch_size=4, lr=1e-3,
)  # fmt: skip


def mini_network(drop_path: float = 0.5, name: str = "two_branch_tiny") -> TrackingNetwork:
    torch.manual_seed(0)
    network = build_network(
        name, dim=24, depth=4, heads=2, head_channels=8, stem=(4, 6, 8), template_size=32,
        search_size=64, drop_path=drop_path,
    )  # fmt: skip
    select_trainable(network, "backbone")
    return network


def mini_batch(start: int, stop: int) -> dict[str, torch.Tensor]:
    """Samples ``start`` to ``stop``; each is a function of its index."""

    def sample(index: int) -> dict[str, torch.Tensor]:
        generator = torch.Generator().manual_seed(index)
        box = 0.3 + 0.4 * torch.rand(4, generator=generator)
        return {
            "template": torch.randint(255, (6, 32, 32), generator=generator, dtype=torch.uint8),
            "search": torch.randint(255, (6, 64, 64), generator=generator, dtype=torch.uint8),
            "search_box": box,
        }

    samples = [sample(index) for index in range(start, stop)]
    return {name: torch.stack([s[name] for s in samples]) for name in samples[0]}


def mini_batches(recipe: Recipe, processes: Processes, step: int):
    """This process's share of the batches from ``step`` to the end of the run."""
    size, share = recipe.batch_size, recipe.batch_size // processes.count
    for first in range(step * size, recipe.total_steps * size, size):
        start = first + processes.rank * share
        yield mini_batch(start, start + share)


def mini_trainer(
    folder: Path,
    *overrides: str,
    network: TrackingNetwork | None = None,
    processes: Processes | None = None,
    kind: type[Trainer] = Trainer,
    share: bool = True,
    device: torch.device = CPU,
) -> Trainer:
    recipe = RECIPE.override(list(overrides))
    network = network or mini_network()
    processes = processes or Processes()
    model = prepare(network, recipe, device, processes) if share else network
    options = {"kappa": recipe.kappa} if recipe.regularizer.startswith("srft") else {}
    regularizer = make_regularizer(recipe.regularizer, network, None, recipe.total_steps, **options)
    return kind(
        network,
        model,
        recipe,
        regularizer,
        lambda step: mini_batches(recipe, processes, step),
        [mini_batch(1000, 1004)] if recipe.validation else None,
        folder,
        device,
        processes,
    )
