"""What the study runs: its questions, the ways of fine-tuning that answer them, and its budgets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from srft_plugin.errors import unknown

if TYPE_CHECKING:
    from ltr_ext.recipe import Recipe


@dataclass(frozen=True)
class Budget:
    """How much is generated, trained and tracked.

    Attributes:
        modalities: recipe ``tiny_<modality>`` and its test set for each.
        seeds: repetitions; a seed decides initialisation, sampling and augmentation, not the data.
        train_sequences, train_length: videos for fine-tuning, and their frames.
        test_sequences, test_length: of the RGB-X test set and of the RGB test set alike.
        test_pairs: template and search region pairs on which the networks are compared as well.
        settings: of every recipe, as overrides.
    """

    modalities: tuple[str, ...]
    seeds: int
    train_sequences: int
    train_length: int
    test_sequences: int
    test_length: int
    test_pairs: int
    settings: tuple[str, ...]


BUDGETS = {
    "smoke": Budget(("depth",), 2, 2, 12, 2, 10, 8,
                    ("epochs=1", "samples_per_epoch=32", "prior_samples=16")),
    "small": Budget(("depth",), 5, 40, 60, 12, 80, 512, ("epochs=4", "samples_per_epoch=640")),
    "full": Budget(("depth", "thermal", "event"), 10, 400, 100, 60, 150, 2048,
                   ("epochs=10", "samples_per_epoch=8000")),
}  # fmt: skip

PEERS = ("vipt", "untrack", "sdstrack")
# Ways to fine-tune: a label, and what it changes in the recipe. None: nothing is trained.
VARIANTS: dict[str, tuple[str, ...] | None] = {
    "rgb": None,  # the base tracker, blind to the second camera
    "zero-shot": None,  # two branches copied from it
    **{
        name if name != "none" else "fft": (f"regularizer={name}",)
        for name in (
            "none", "srft", "srft:prior", "srft:transfer", "srft:random", "srft:reversed",
            "srft:indexed", "effective", "l2sp", "ewc", "ewc:diagonal", "tracer",
        )
    },
    "fft lr/3": ("regularizer=none", "lr=1e-4"),
    "fft lr/10": ("regularizer=none", "lr=3e-5"),
    "fft lr/100": ("regularizer=none", "lr=3e-6"),
    "srft lr*2.5": ("regularizer=srft", "lr=7.5e-4"),  # 1 / mean of 1 - s: as long a way as fft
    "srft K=1": ("regularizer=srft", "top_k=1"),
    "srft K=20": ("regularizer=srft", "top_k=20"),
    "srft kappa=0.2": ("regularizer=srft", "kappa=0.2"),
    "srft kappa=0.4": ("regularizer=srft", "kappa=0.4"),
    "srft kappa=0.8": ("regularizer=srft", "kappa=0.8"),
    "fft + head": ("regularizer=none", "trainable=backbone+head"),
    "srft + head": ("regularizer=srft", "trainable=backbone+head"),
    **{
        f"{network}{label}": (f"network={network}_tiny", *settings)
        for network in PEERS
        for label, settings in (
            ("", ("regularizer=none", "trainable=peft", "lr=1.2e-3")),  # 4 times the rate, as ViPT
            (" unfrozen", ("regularizer=none", "trainable=peft+backbone")),
            (" unfrozen, srft", ("regularizer=srft", "trainable=peft+backbone")),
        )
    },
    "RGB alone": ("regularizer=none", "network=ostrack_tiny"),
    "RGB alone, srft": ("regularizer=srft", "network=ostrack_tiny"),
    "second camera alone": ("regularizer=none", "network=ostrack_tiny_aux"),
    "second camera alone, srft": ("regularizer=srft", "network=ostrack_tiny_aux"),
}  # fmt: skip


class Question(NamedTuple):
    """A question, the table or figure of the paper that asks it, and the variants that answer it.

    The other variants are compared, seed by seed, with ``reference``.
    """

    text: str
    asked_by: str
    reference: str
    variants: tuple[str, ...]


QUESTIONS = {
    "sensitivities": Question(
        "Do both sensitivities help?",
        "Table IV, Fig. 1",
        "fft",
        ("rgb", "zero-shot", "fft", "srft:prior", "srft:transfer", "srft"),
    ),
    "controls": Question(
        "Is it more than a smaller step, and is it the choice of weights?",
        "",
        "srft",
        ("srft", "effective", "srft:random", "srft:reversed", "srft:indexed"),
    ),
    "rates": Question(
        "Which learning rate?",
        "Table XI",
        "srft",
        ("srft", "srft lr*2.5", "fft", "fft lr/3", "fft lr/10", "fft lr/100"),
    ),
    "top_k": Question(
        "How many eigenvalues?", "Table V", "srft", ("srft", "srft K=1", "srft K=20")
    ),
    "kappa": Question(
        "How much prior, how much transfer?",
        "Table VI",
        "srft",
        ("srft", "srft kappa=0.2", "srft kappa=0.4", "srft kappa=0.8"),
    ),
    "head": Question(
        "Should the head be tuned?",
        "Table VII",
        "srft",
        ("srft", "srft + head", "fft", "fft + head"),
    ),
    "peers": Question(
        "Does it help efficient tuning?",
        "Table VIII",
        "srft",
        (
            "srft",
            *(f"{peer}{label}" for peer in PEERS for label in ("", " unfrozen", " unfrozen, srft")),
        ),
    ),
    "modality": Question(
        "What does one camera give alone?",
        "Table IX",
        "srft",
        (
            "srft",
            "RGB alone",
            "RGB alone, srft",
            "second camera alone",
            "second camera alone, srft",
        ),
    ),
    "regularizers": Question(
        "Against other regularizers, at equal budget?",
        "",
        "srft",
        ("fft", "srft", "l2sp", "ewc", "ewc:diagonal", "tracer"),
    ),
}


class Cell(NamedTuple):
    """One training and its scores."""

    modality: str
    variant: str
    seed: int

    @property
    def path(self) -> str:
        """Its folder below that of the study."""
        name = "".join(c if c.isalnum() or c in "-.=" else "_" for c in self.variant)
        return f"{self.modality}/{name}/seed{self.seed}"


def cells(budget: Budget, questions: tuple[str, ...]) -> Iterator[Cell]:
    """Every training that the questions need, once: all variants of a seed before the next seed.

    Raises:
        UserError: an unknown question.
    """
    for name in questions:
        if name not in QUESTIONS:
            raise unknown("question", name, QUESTIONS)
    variants = dict.fromkeys(v for name in questions for v in QUESTIONS[name].variants)
    for seed in range(budget.seeds):
        for modality in budget.modalities:
            for variant in variants:
                if VARIANTS[variant] is not None or seed == 0:
                    yield Cell(modality, variant, seed)


def recipe(cell: Cell, budget: Budget, train_set: str) -> Recipe:
    """The recipe that a cell trains on ``train_set`` (``name:root``)."""
    from ltr_ext.recipe import load_recipe  # imports torch; every `srft` command imports this file

    settings = [*budget.settings, f"datasets={train_set}", f"seed={cell.seed}", "workers=0"]
    return load_recipe(f"tiny_{cell.modality}").override(
        [*settings, *(VARIANTS[cell.variant] or ())]
    )
