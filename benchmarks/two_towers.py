"""A toy of image-text fine-tuning: what a WMA teacher keeps that an EMA teacher lets go.

    python benchmarks/two_towers.py [--steps 2000] [--seeds 5]

Two small towers see two views of latent variables, those of the task and others. Pre-trained, they
match views by both. The data to fine-tune on pair views by the task's variables only, in a new
relation; the others are drawn for each view by itself. What a run learns is how often views of the
task's variables alone find each other in the new relation, and what it keeps, how often views of
the other variables alone still do: recall at 1 among 256, chance 0.004. The distillation is the one
that TRACER has without further weights: cross entropy of the logits in both directions.
"""

from __future__ import annotations

import argparse
import copy
import math
from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn

from srft_plugin.tuning.regularizer import make_regularizer

TASK, OTHER, VIEW, FEATURES = 6, 6, 24, 12  # numbers of variables
BATCH = 128
LEARNT, KEPT = ("new", "absent"), ("absent", "shared")  # task's variables, other variables
CROSS_ENTROPY = {"crd": 2.0, "fd": 0.0, "icl": 0.0, "cross_kd": 0.0}


class TwoTowers(nn.Module):
    """Two perceptrons; answers with the features of both and CLIP's factor on their cosines."""

    def __init__(self) -> None:
        super().__init__()
        self.towers = nn.ModuleList(
            nn.Sequential(nn.Linear(VIEW, 64), nn.GELU(), nn.Linear(64, FEATURES)) for _ in range(2)
        )
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.towers[0](first), self.towers[1](second), self.log_scale.exp()


class Views:
    """Draws pairs of views of latent variables."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.mixing = [self._normal(TASK + OTHER, VIEW) / (TASK + OTHER) ** 0.5 for _ in range(2)]
        self.relation = torch.linalg.qr(self._normal(TASK, TASK))[0]

    def draw(self, n: int, task: str, other: str) -> tuple[Tensor, Tensor]:
        """(n, VIEW) each; variables are ``shared``, ``new`` (in the new relation), ``apart`` or
        ``absent``."""
        variables = zip(self._pair(n, TASK, task), self._pair(n, OTHER, other), strict=True)
        return tuple(
            torch.cat(latent, 1) @ mixing + 0.1 * self._normal(n, VIEW)
            for latent, mixing in zip(variables, self.mixing, strict=True)
        )

    def _pair(self, n: int, dim: int, kind: str) -> tuple[Tensor, Tensor]:
        first = self._normal(n, dim)
        if kind == "absent":
            return torch.zeros(n, dim), torch.zeros(n, dim)
        second = {"shared": first, "new": first @ self.relation, "apart": self._normal(n, dim)}
        return first, second[kind]

    def _normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)


class Run(NamedTuple):
    """How a run went.

    Attributes:
        learnt, kept: recall at 1 by the task's variables in the new relation, and by the others.
        distances: of teacher and student over that of student and start, after each tenth.
    """

    learnt: float
    kept: float
    distances: list[float]


def train(
    network: TwoTowers, views: Views, steps: int, kinds: tuple[str, str], rate: float, **options
) -> list[float]:
    """AdamW with a cosine schedule on CLIP's loss and what contrastive_wma adds to it."""
    regularizer = make_regularizer(
        "contrastive_wma", network, None, steps, every=max(steps // 50, 1), **options
    )
    start = _flat(network.parameters())
    optimizer = torch.optim.AdamW(network.parameters(), rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    distances = []
    for step in range(1, steps + 1):
        inputs = views.draw(BATCH, *kinds)
        loss = regularizer.loss_term(inputs, network(*inputs))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        regularizer.after_step()
        if step % (steps // 10) == 0:
            student = _flat(network.parameters())
            teacher = _flat(regularizer.teacher.average.values())
            distances.append(float((teacher - student).norm() / (student - start).norm()))
    return distances


def pretrained(seed: int, steps: int) -> tuple[TwoTowers, Views]:
    """Towers that match views by all variables, and the views."""
    torch.manual_seed(seed)
    network, views = TwoTowers(), Views(seed)
    train(network, views, steps, ("shared", "shared"), 3e-3, coefficient=0.0)
    return network, views


def fine_tuned(
    network: TwoTowers, views: Views, steps: int, average: str, coefficient: float
) -> Run:
    """A copy of the pre-trained towers, fine-tuned with a teacher; no distillation with 0."""
    network = copy.deepcopy(network)
    options = CROSS_ENTROPY | {"average": average, "coefficient": coefficient}
    distances = train(network, views, steps, ("new", "apart"), 1e-3, **options)
    return Run(recall(network, views, *LEARNT), recall(network, views, *KEPT), distances)


@torch.no_grad()
def recall(network: TwoTowers, views: Views, task: str, other: str) -> float:
    """Recall at 1 of the second view by the first, mean over 8 times 256 pairs."""
    hits = []
    for _ in range(8):
        first, second, _ = network(*views.draw(256, task, other))
        cosines = nn.functional.normalize(first) @ nn.functional.normalize(second).mT
        hits.append((cosines.argmax(1) == torch.arange(256)).float().mean())
    return float(torch.stack(hits).mean())


def _flat(tensors) -> Tensor:
    return torch.cat([t.detach().flatten() for t in tensors])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    print("seed teacher lambda learnt  kept   distance of the teacher after each tenth")
    for seed in range(arguments.seeds):
        network, views = pretrained(seed, arguments.steps)
        before = f"{recall(network, views, *LEARNT):.3f}  {recall(network, views, *KEPT):.3f}"
        print(f"{seed:4d} {'start':14s}  {before}", flush=True)
        for average, coefficient in (("wma", 0.0), *product(("ema", "wma"), (0.3, 1.0))):
            run = fine_tuned(network, views, arguments.steps, average, coefficient)
            distances = " ".join(f"{value:.2f}" for value in run.distances)
            shown = average if coefficient else "none"
            print(
                f"{seed:4d} {shown:7s} {coefficient:6.1f}  {run.learnt:.3f}  {run.kept:.3f}  "
                f"{distances}",
                flush=True,
            )


if __name__ == "__main__":
    main()
