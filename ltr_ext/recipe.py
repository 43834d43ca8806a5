"""A recipe: everything that determines a training run, in one flat record."""

from __future__ import annotations

import dataclasses
import importlib
import math
import pkgutil
import re
from dataclasses import dataclass
from typing import Any

from srft_plugin.errors import UserError, unknown
from srft_plugin.schedule import sensitivity_weights
from srft_plugin.tuning.regularizer import read_options
from srft_plugin.tuning.trainable import TRAINABLE_SETS
from srft_plugin.values import read_assignments


@dataclass(frozen=True)
class Recipe:
    """Settings of one run; the defaults are those of section IV-A.4 of the paper.

    Where it is silent (gradient norm, gap, jitter), they are those of its public code.

    Args:
        network: name in ``ltr_ext.models.registry``.
        datasets: training sets, by name (``depthtrack``), with an explicit root
            (``depthtrack:/data/DepthTrack``), a part of them (``got10k/val``, or
            ``depthtrack/train_part``), or generated (``synthetic_rgb``, ``synthetic_rgbd``,
            ``synthetic_rgbt``, ``synthetic_rgbe``, ``synthetic_stills``).
        base: checkpoint to start from, of the RGB network or of ``network`` itself: a file, the
            name of one in ``pretrained_dir``, ``default`` for the bundled tracker, or None to train
            from scratch.
        source: sets that stand for the domain D_0 of the prior sensitivity, on which the base was
            trained: RGB, or also those of both cameras for a base that has been tuned.
        regularizer: ``none`` (full fine-tuning), ``srft``, or another of
            ``srft_plugin.tuning.regularizer``, or one that another package adds.
        regularizer_options: what it takes beyond ``kappa``, ``option=value`` each.
        trainable: which parameters train: ``srft_plugin.tuning.trainable.TRAINABLE_SETS``.
        epochs, samples_per_epoch: the budget; what does not fill a batch is left out.
        batch_size: samples of a step, the total over processes.
        lr, weight_decay: of AdamW.
        grad_clip: bound on the norm of the gradient; ``inf`` for none.
        lr_groups: learning rates of parameters by name, ``regex=rate`` each; the first expression
            that is found in a name decides, ``lr`` is for the rest.
        warmup: share of the steps in which the rate rises linearly from 0.
        decay: what happens to the rate in the end: ``none``, ``step`` (times 0.1) or ``linear``
            (to 0).
        decay_at: share of the steps after which it does.
        kappa: harmony coefficient of Eq. 14.
        top_k: eigenvalues per operation, K of Eq. 8.
        prior_samples: samples of D_0.
        prior: file of the base tracker's prior sensitivity, from `srft sensitivity` or another run;
            None estimates it when the run starts.
        ratios: how often each of ``datasets`` is drawn, in any unit; without, in equal parts.
        max_gap: largest distance in frames between template and search region.
        centre_jitter, scale_jitter: displacement of the search region (dimensionless).
        skip_unreadable: how many samples each worker may replace by others because a file cannot
            be read; 0 ends the run at the first, naming the file.
        seed: seeds initialisation, sampling and augmentation.
        validation: sets that each epoch is judged on, ``depthtrack/val_part`` for one; without
            any, it is judged by its own training pairs.
        validation_samples: pairs that it is judged on.
        keep: how many of the newest checkpoints stay, beside the best.
        save_minutes: after so many minutes there is a checkpoint within an epoch, too, at the next
            step that is logged; ``inf`` for none.
        max_skipped: so many steps in a row with a NaN or infinite gradient end the run.
        precision: ``fp32``, or autocast to ``bf16`` or to ``fp16`` with a scaled loss.
        accumulate: parts that a batch is computed in, one after the other.
        checkpoint_activations: compute the blocks' activations twice instead of keeping them.
        ema: decay of a running average of the weights, which is then what the run is judged by and
            leaves behind; 0 for none.
        compile: ``torch.compile`` the network, and on a CPU the update of SRFT.
        parallel: how processes share the work: ``ddp``, or ``fsdp`` to share the weights as well.
        workers: processes that prepare batches; 0 prepares them in the training process.
    """

    network: str
    datasets: tuple[str, ...]
    base: str | None = "default"
    source: tuple[str, ...] = ("synthetic_rgb",)
    regularizer: str = "srft"
    regularizer_options: tuple[str, ...] = ()
    trainable: str = "backbone"
    epochs: int = 30
    samples_per_epoch: int = 80_000
    batch_size: int = 192
    lr: float = 1e-4
    weight_decay: float = 1e-4
    grad_clip: float = 0.1
    lr_groups: tuple[str, ...] = ()
    warmup: float = 0.0
    decay: str = "none"
    decay_at: float = 0.8
    kappa: float = 0.6
    top_k: int = 10
    prior_samples: int = 256
    prior: str | None = None
    ratios: tuple[float, ...] = ()
    max_gap: int = 200
    centre_jitter: float = 3.0
    scale_jitter: float = 0.25
    skip_unreadable: int = 0
    seed: int = 0
    validation: tuple[str, ...] = ()
    validation_samples: int = 512
    keep: int = 2
    save_minutes: float = 10.0
    max_skipped: int = 10
    precision: str = "fp32"
    accumulate: int = 1
    checkpoint_activations: bool = False
    ema: float = 0.0
    compile: bool = False
    parallel: str = "ddp"
    workers: int = 4

    def __post_init__(self):
        for name, (low, high) in LIMITS.items():
            value = getattr(self, name)
            if not low <= value < high:  # nor is NaN within any limits
                below = f" and below {high}" if math.isfinite(high) or value == high else ""
                raise UserError(f"{name} must be at least {low}{below}, not {value}")
        if not self.grad_clip > 0:
            raise UserError(f"grad_clip must be above 0, not {self.grad_clip}; inf clips nothing")
        if not self.save_minutes >= 0:
            raise UserError(f"save_minutes must be at least 0, not {self.save_minutes}")
        if not self.datasets:
            raise UserError("datasets names none; give one, such as datasets=depthtrack")
        if self.samples_per_epoch < self.batch_size:
            raise UserError(
                f"samples_per_epoch ({self.samples_per_epoch}) is smaller than one batch "
                f"({self.batch_size}); lower batch_size"
            )
        for name, allowed in CHOICES.items():
            if getattr(self, name) not in allowed:
                raise unknown(f"value of {name}", getattr(self, name), allowed)
        sensitivity_weights(0, self.total_steps, self.kappa)  # refuses a wrong kappa
        read_options(self.regularizer, self.regularizer_options)
        self.rates()

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
        if progress < self.decay_at or self.decay == "none":
            return 1.0
        return 0.1 if self.decay == "step" else (1 - progress) / (1 - self.decay_at)

    def rates(self) -> list[tuple[re.Pattern[str], float]]:
        """``lr_groups``, read.

        Raises:
            UserError: one is not a regular expression, ``=`` and a number from 0 on.
        """
        rates = []
        for group in self.lr_groups:
            pattern, _, rate = group.rpartition("=")
            try:
                rates.append((re.compile(pattern), float(rate)))
                if not 0 <= rates[-1][1] < math.inf:
                    raise ValueError("a rate is finite and at least 0")
            except (re.error, ValueError) as error:
                raise UserError(
                    f"lr_groups: {group!r} is not of the form regex=rate, such as "
                    f"backbone.fusion=1e-4 ({error})"
                ) from error
        return rates

    def override(self, assignments: list[str]) -> Recipe:
        """A copy with ``key=value`` assignments applied, values read by the field's type.

        Raises:
            UserError: an unknown key (the nearest is suggested) or a value of another type.
        """
        return dataclasses.replace(self, **read_assignments(assignments, Recipe))

    def run(self, settings: Any) -> None:
        """Entry point of pytracking's ``run_training.py``: trains, or resumes, this recipe."""
        from ltr_ext.run_training import run_in_host

        run_in_host(self, settings)


DRAWN_BY = ("seed", "max_gap", "centre_jitter", "scale_jitter")  # what decides the pairs of a set
LIMITS = {  # from the first number on, and below the second
    **dict.fromkeys(("epochs", "samples_per_epoch", "batch_size", "accumulate"), (1, math.inf)),
    **dict.fromkeys(("keep", "max_skipped", "validation_samples", "max_gap"), (1, math.inf)),
    **dict.fromkeys(("top_k", "prior_samples"), (1, math.inf)),
    **dict.fromkeys(("lr", "weight_decay", "centre_jitter", "scale_jitter"), (0, math.inf)),
    **dict.fromkeys(("seed", "workers", "skip_unreadable"), (0, math.inf)),
    **dict.fromkeys(("warmup", "decay_at", "ema"), (0, 1)),
}
CHOICES = {
    "decay": ("none", "step", "linear"),
    "parallel": ("ddp", "fsdp"),
    "precision": ("fp32", "bf16", "fp16"),
    "trainable": tuple(TRAINABLE_SETS),
}


def config_names() -> list[str]:
    """Names of the recipes in ``ltr_ext/train_settings/srft``."""
    from ltr_ext.train_settings import srft

    return sorted(module.name for module in pkgutil.iter_modules(srft.__path__))


class UnknownConfig:
    """The last of Python's import finders in a linked checkout: it suggests the nearest config.

    Args:
        package: name of the host's package of configs.
    """

    def __init__(self, package: str):
        self.package = package

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        """What Python asks of a finder; nothing is ever found here.

        Raises:
            UserError: ``name`` is that of a config, which no finder before has found.
        """
        package, _, config = name.rpartition(".")
        if package == self.package:
            raise unknown("config", config, config_names())


def load_recipe(name: str) -> Recipe:
    """The recipe of config ``name``.

    Raises:
        UserError: there is no such config; the nearest name is suggested.
    """
    if name not in config_names():
        raise unknown("config", name, config_names())
    return importlib.import_module(f"ltr_ext.train_settings.srft.{name}").recipe
