"""A recipe: everything that determines a training run, in one flat record."""

from __future__ import annotations

import dataclasses
import importlib
import pkgutil
from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args, get_type_hints

from srft_plugin.errors import UserError, unknown
from srft_plugin.tuning.regularizer import regularizer_names
from srft_plugin.tuning.trainable import TRAINABLE_SETS


@dataclass(frozen=True)
class Recipe:
    """Settings of one run; the defaults are those of section IV-A.4 of the paper.

    Args:
        network: name in ``ltr_ext.models.registry``.
        datasets: training sets, by name (``depthtrack``), with an explicit root
            (``depthtrack:/data/DepthTrack/train``), or generated (``synthetic_rgb``,
            ``synthetic_rgbd``); mixed in equal parts.
        base: RGB checkpoint to start from: a file, the name of one in ``pretrained_dir``,
            ``default`` for the bundled tracker, or None to train from scratch.
        source: RGB sets that stand for the pre-training domain D_0 of the prior sensitivity.
        regularizer: ``none`` (full fine-tuning), ``srft``, ``srft:prior``, ``srft:transfer``,
            ``l2sp``, ``ewc``, or one that another package adds.
        trainable: which parameters train: ``srft_plugin.tuning.trainable.TRAINABLE_SETS``.
        epochs, samples_per_epoch, batch_size: the budget; the batch is the total over processes.
        lr, weight_decay, grad_clip: AdamW and the bound on the gradient norm.
        warmup: share of the steps in which the rate rises linearly from 0.
        decay: what happens in the last fifth of the steps: ``none``, ``step`` (times 0.1) or
            ``linear`` (to 0).
        kappa: harmony coefficient of Eq. 14.
        top_k, prior_samples: eigenvalues per operation (Eq. 8) and samples of D_0.
        max_gap: largest distance in frames between template and search region.
        centre_jitter, scale_jitter: displacement of the search region (dimensionless).
        seed: seeds initialisation, sampling and augmentation.
        precision: ``fp32`` or ``bf16`` (autocast).
        workers: processes that prepare batches; 0 prepares them in the training process.
    """

    network: str
    datasets: tuple[str, ...]
    base: str | None = "default"
    source: tuple[str, ...] = ("synthetic_rgb",)
    regularizer: str = "srft"
    trainable: str = "backbone"
    epochs: int = 30
    samples_per_epoch: int = 80_000
    batch_size: int = 192
    lr: float = 1e-4
    weight_decay: float = 1e-4
    grad_clip: float = 0.1
    warmup: float = 0.0
    decay: str = "none"
    kappa: float = 0.6
    top_k: int = 10
    prior_samples: int = 256
    max_gap: int = 200
    centre_jitter: float = 3.0
    scale_jitter: float = 0.25
    seed: int = 0
    precision: str = "fp32"
    workers: int = 4

    def __post_init__(self):
        for name in ("epochs", "samples_per_epoch", "batch_size"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} must be at least 1, not {getattr(self, name)}")
        if self.samples_per_epoch < self.batch_size:
            raise UserError(
                f"samples_per_epoch ({self.samples_per_epoch}) is smaller than one batch "
                f"({self.batch_size}); lower batch_size"
            )
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise unknown(f"value of {name}", getattr(self, name), allowed)
        if self.regularizer not in regularizer_names():
            raise unknown("regularizer", self.regularizer, regularizer_names())

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; a remainder is left out."""
        return self.samples_per_epoch // self.batch_size

    @property
    def total_steps(self) -> int:
        """T of Eq. 14."""
        return self.epochs * self.steps_per_epoch

    def rate(self, step: int) -> float:
        """Factor on the learning rate before step ``step`` (0-based)."""
        progress = step / self.total_steps
        if progress < self.warmup:
            return (step + 1) / (self.warmup * self.total_steps + 1)
        if progress < 0.8 or self.decay == "none":
            return 1.0
        return 0.1 if self.decay == "step" else (1 - progress) / 0.2

    def override(self, assignments: list[str]) -> Recipe:
        """A copy with ``key=value`` assignments applied, values read by the field's type.

        Raises:
            UserError: an unknown key (the nearest is suggested) or a value of another type.
        """
        hints = get_type_hints(Recipe)
        changes = {}
        for assignment in assignments:
            key, equals, text = assignment.partition("=")
            if not equals:
                raise UserError(f"override {assignment!r}: expected key=value")
            if key not in hints:
                raise unknown("setting", key, hints)
            changes[key] = _parse(key, text, hints[key])
        return dataclasses.replace(self, **changes)

    def run(self, settings: Any) -> None:
        """Entry point of pytracking's ``run_training.py``: trains, or resumes, this recipe."""
        from ltr_ext.run_training import run_in_host

        run_in_host(self, settings)


TRAINING_SETS = {"depth": "depthtrack", "thermal": "lasher", "event": "visevent"}


def paper_recipe(base: str, *modalities: str) -> Recipe:
    """The paper's recipe for the two-branch network on ``base`` (sections III and IV-A.4).

    Args:
        base: an RGB network of the registry; its official checkpoint is expected in
            ``pretrained_dir`` as ``<base>.pth.tar``, or is given by ``base=PATH``.
        modalities: what to train on; more than one makes a tracker for all of them (rgbx).
    """
    return Recipe(
        network=f"two_branch_{base}",
        base=f"{base}.pth.tar",
        datasets=tuple(TRAINING_SETS[modality] for modality in modalities),
        source=("lasot", "got10k"),
        precision="bf16",
        workers=8,
    )


def vipt_recipe(modality: str) -> Recipe:
    """ViPT as its authors train it: 60 epochs of 60 000 samples, the rate falls after 48."""
    return dataclasses.replace(
        paper_recipe("ostrack256", modality),
        network="vipt256",
        regularizer="none",
        trainable="peft",
        epochs=60,
        samples_per_epoch=60_000,
        batch_size=64,
        lr=4e-4,
        decay="step",
    )


def unfrozen_recipe(network: str, base: str, modality: str) -> Recipe:
    """A network of efficient tuning with its backbone unfrozen, by SRFT (Table VIII)."""
    return dataclasses.replace(
        paper_recipe(base, modality), network=network, trainable="peft+backbone"
    )


CHOICES = {
    "decay": ("none", "step", "linear"),
    "precision": ("fp32", "bf16"),
    "trainable": tuple(TRAINABLE_SETS),
}


def _parse(key: str, text: str, hint: Any) -> Any:
    options = get_args(hint) or (hint,)
    if NoneType in options and text.lower() == "none":
        return None
    kind = options[0]
    if hint == tuple[str, ...]:
        return tuple(part for part in text.split(",") if part)
    try:
        return kind(text)
    except ValueError as error:
        raise UserError(f"{key}={text}: expected {kind.__name__}") from error


def config_names() -> list[str]:
    """Names of the recipes in ``ltr_ext/train_settings/srft``."""
    from ltr_ext.train_settings import srft

    return sorted(module.name for module in pkgutil.iter_modules(srft.__path__))


def load_recipe(name: str) -> Recipe:
    """The recipe of config ``name``.

    Raises:
        UserError: there is no such config; the nearest name is suggested.
    """
    if name not in config_names():
        raise unknown("config", name, config_names())
    return importlib.import_module(f"ltr_ext.train_settings.srft.{name}").recipe
