"""What the study runs: its questions, the ways of fine-tuning that answer them, and its budgets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from srft_plugin.errors import unknown

if TYPE_CHECKING:
    from ltr_ext.recipe import Recipe


@dataclass(frozen=True)
class Budget:
    """How much is generated, trained and tracked.

    Attributes:
        modalities: recipe ``tiny_<modality>`` and its test set for each.
        seeds: repetitions; a seed decides the training videos, initialisation, sampling and
            augmentation. The test videos are the same for all.
        train_sequences, train_length: videos for one fine-tuning, and their frames.
        test_sequences, test_length: of the RGB-X test set and of the RGB test set alike.
        test_pairs: template and search region pairs on which the networks are compared as well.
        curvature_samples: of the source domain, for the estimates of the prior that take thousands
            of passes over them.
        settings: of every recipe, as overrides.
    """

    modalities: tuple[str, ...]
    seeds: int
    train_sequences: int
    train_length: int
    test_sequences: int
    test_length: int
    test_pairs: int
    curvature_samples: int
    settings: tuple[str, ...]


REVISION = 2  # raised when the networks, the data or the measurements change
VIDEOS = ("train_sequences", "train_length", "test_sequences", "test_length")  # of a budget
BUDGETS = {
    "smoke": Budget(("depth",), 2, 2, 12, 2, 10, 8, 10,
                    ("epochs=1", "samples_per_epoch=32", "prior_samples=16")),
    "small": Budget(("depth",), 5, 8, 60, 10, 60, 384, 16,
                    ("epochs=3", "samples_per_epoch=640", "precision=bf16")),
    "wide": Budget(("depth",), 5, 40, 60, 10, 60, 384, 16,
                   ("epochs=3", "samples_per_epoch=640", "precision=bf16")),
    "full": Budget(("depth", "thermal", "event"), 10, 400, 100, 60, 150, 2048, 64,
                   ("epochs=10", "samples_per_epoch=8000")),
}  # fmt: skip

PEERS = {  # and what efficient tuning adds, as `peft_pattern` of the networks
    "vipt": "prompt",
    "untrack": "prompt",
    "sdstrack": r"Adapter|multimodal|backbone\.norm\.",
}
PRIORS = ("lanczos", "finite_difference", "random")  # beside the exact Fisher; see priors.py


class Variant(NamedTuple):
    """A way to fine-tune: what it changes in the recipe, and what it trains on.

    Attributes:
        settings: overrides.
        prior: which of ``PRIORS`` it takes in place of the exact Fisher's.
        form: representation of the events; None for that of the recipes.
        length: how many times the budget's epochs it trains.
    """

    settings: tuple[str, ...]
    prior: str | None = None
    form: str | None = None
    length: int = 1


def _srft(*settings: str, **rest: Any) -> Variant:
    return Variant(("regularizer=srft", *settings), **rest)


def _fft(*settings: str) -> Variant:
    return Variant(("regularizer=none", *settings))


# By label. None: nothing is trained.
VARIANTS: dict[str, Variant | None] = {
    "rgb": None,  # the base tracker, blind to the second camera
    "zero-shot": None,  # two branches copied from it
    "fft": _fft(),
    **{
        name: Variant((f"regularizer={name}",))
        for name in (
            "srft", "srft:prior", "srft:transfer", "srft:random", "srft:reversed", "srft:indexed",
            "effective", "l2sp", "ewc", "ewc:diagonal", "tracer",
        )
    },
    "MLPs alone": _fft("trainable=mlp"),  # UPVPT's choice
    "fft lr/1.5": _fft("lr=2e-4"),
    "fft lr/3": _fft("lr=1e-4"),
    "fft lr/10": _fft("lr=3e-5"),
    "fft lr/100": _fft("lr=3e-6"),
    "srft lr*1.87": _srft("lr=5.6e-4"),  # 1 / mean of 1 - s: as long a way as fft
    "srft lr*2.5": _srft("lr=7.5e-4"),
    "srft K=1": _srft("top_k=1"),
    "srft K=20": _srft("top_k=20"),
    "srft kappa=0.2": _srft("kappa=0.2"),
    "srft kappa=0.4": _srft("kappa=0.4"),
    "srft kappa=0.8": _srft("kappa=0.8"),
    "fft + head": _fft("trainable=backbone+head"),
    "srft + head": _srft("trainable=backbone+head"),
    **{f"srft, prior by {prior}": _srft(prior=prior) for prior in PRIORS},
    **{
        f"{network}{label}": make(f"network={network}_tiny", *settings)
        for network, added in PEERS.items()
        for label, make, settings in (
            ("", _fft, ("trainable=peft", "lr=1.2e-3")),  # 4 times the rate, as ViPT
            (" unfrozen", _fft, ("trainable=peft+backbone",)),
            (" unfrozen, lr/3", _fft, ("trainable=peft+backbone", "lr=1e-4")),
            (" unfrozen, backbone lr/3", _fft,
             ("trainable=peft+backbone", "lr=1e-4", f"lr_groups={added}=3e-4")),
            (" unfrozen, srft", _srft, ("trainable=peft+backbone",)),
        )
    },
    "RGB alone": _fft("network=ostrack_tiny"),
    "RGB alone, srft": _srft("network=ostrack_tiny"),
    "second camera alone": _fft("network=ostrack_tiny_aux"),
    "second camera alone, srft": _srft("network=ostrack_tiny_aux"),
    **{
        f"srft, {form}": _srft(form=form)
        for form in ("event_frame", "event_count", "time_surface", "tsltd", "event_volume")
    },
}  # fmt: skip
LONGER = ("fft", "fft lr/3", "effective", "srft", "srft lr*2.5")
VARIANTS |= {f"{label}, 3 x as long": VARIANTS[label]._replace(length=3) for label in LONGER}


class Question(NamedTuple):
    """A question, the table or figure of the paper that asks it, and the variants that answer it.

    The other variants are compared, seed by seed, with ``reference``. Where ``modality`` is given,
    it is asked of that one alone.
    """

    text: str
    asked_by: str
    reference: str
    variants: tuple[str, ...]
    modality: str | None = None

    def concerns(self, modality: str) -> bool:
        """Whether it is asked of ``modality``."""
        return self.modality in (None, modality)


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
        (
            "srft",
            "srft lr*1.87",
            "srft lr*2.5",
            "fft",
            "fft lr/1.5",
            "fft lr/3",
            "fft lr/10",
            "fft lr/100",
        ),
    ),
    "length": Question(
        "Who overfits in a longer training?",
        "",
        "srft, 3 x as long",
        tuple(f"{label}, 3 x as long" for label in LONGER),
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
    **{
        peer: Question(
            f"Does it help efficient tuning, {peer}?",
            "Table VIII",
            f"{peer} unfrozen",
            tuple(label for label in VARIANTS if label.startswith(peer)),
        )
        for peer in PEERS
    },
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
        ("fft", "srft", "l2sp", "ewc", "ewc:diagonal", "tracer", "MLPs alone"),
    ),
    "estimates": Question(
        "Does the better estimate of the eigenvalues matter?",
        "",
        "srft",
        ("fft", "srft", *(f"srft, prior by {prior}" for prior in PRIORS)),
    ),
    "representations": Question(
        "Which image of the events?",
        "Table X",
        "srft",
        (
            "zero-shot",
            "fft",
            "srft",
            *(label for label, variant in VARIANTS.items() if variant and variant.form),
        ),
        "event",
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
    for seed in range(budget.seeds):
        for modality in budget.modalities:
            asked = (QUESTIONS[name] for name in questions if QUESTIONS[name].concerns(modality))
            for variant in dict.fromkeys(
                label for question in asked for label in question.variants
            ):
                if VARIANTS[variant] is not None or seed == 0:
                    yield Cell(modality, variant, seed)


def recipe(cell: Cell, budget: Budget, train_set: str, prior: Path | None = None) -> Recipe:
    """The recipe of a cell.

    Args:
        train_set: ``name:root``.
        prior: file of the prior, where the variant wants one that is not the exact Fisher's.
    """
    from ltr_ext.recipe import load_recipe  # imports torch; every `srft` command imports this file

    settings = [*budget.settings, f"datasets={train_set}", f"seed={cell.seed}", "workers=0"]
    variant = VARIANTS[cell.variant] or Variant(())
    given = () if prior is None else (f"prior={prior}",)
    found = load_recipe(f"tiny_{cell.modality}").override([*settings, *variant.settings, *given])
    return replace(found, epochs=found.epochs * variant.length)
