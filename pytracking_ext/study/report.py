"""The study's tables and figure, from the results of its cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ltr_ext.admin.files import atomic_write, write_text
from pytracking_ext.analysis.tables import Table, render

from .cost import cost_table
from .plan import QUESTIONS, VARIANTS, Cell, Question
from .statistics import Estimate, discoveries, estimate, paired

Results = dict[Cell, dict]


class Measure(NamedTuple):
    """A column: its heading, and its value of a result, None where there is none."""

    heading: str
    value: Callable[[dict], float | None]
    compared: bool = True


def _tracked(name: str) -> Callable[[dict], float]:
    return lambda result: 100 * float(np.mean(list(result[name].values())))


def _attribute(name: str, videos: list[str]) -> Measure:
    heading = f"{name} ({len(videos)} videos)"
    return Measure(heading, lambda result: 100 * np.mean([result["target"][v] for v in videos]))


def _gap(result: dict) -> float | None:
    """None where nothing was trained."""
    if "train_loss" not in result:
        return None
    return 100 * (result["train_pairs"] - result["target_pairs"])


def _moved(result: dict) -> float | None:
    return 100 * float(np.mean(list(result["moved"].values()))) if result["moved"] else None


def _unevenness(result: dict) -> float | None:
    """Standard deviation over mean of the operations' relative distances."""
    moved = list(result["moved"].values())
    return float(np.std(moved) / np.mean(moved)) if moved and np.mean(moved) else None


MEASURES = (
    Measure("target", _tracked("target")),
    Measure("RGB", _tracked("rgb")),
    Measure("target pairs", lambda result: 100 * result["target_pairs"]),
    Measure("RGB pairs", lambda result: 100 * result["rgb_pairs"]),
    Measure("gap", _gap),
    Measure("moved", _moved, compared=False),
    Measure("unevenness", _unevenness, compared=False),
)
LEGEND = """\
*target*: mean IoU (percent) over the tracked test videos with both cameras: what was learned.
*RGB*: the same on RGB videos, both branches seeing the RGB image: what was kept. *pairs*: mean IoU
of single template and search pairs of the same videos. *gap*: IoU of training pairs minus that of
target pairs. *moved*: mean relative distance of the operations from the start (percent);
*unevenness*: its standard deviation over its mean. Means over seeds, ± half the 95 % interval
(Student's t). In brackets: the difference to the variant with the asterisk, seed by seed, with its
own interval; **bold** where that leaves 0 out. Intervals are over seeds, that is over what was
trained on: the test videos are the same."""
COST_LEGEND = """\
*trained*: parameters. *step*: time of a training step, that of `fft` = 1, taken in turns on one
batch in memory (`srft study cost`). *prior*: time of its estimate, in steps of `fft`."""
FEWEST = 3  # videos with an attribute, for a column of its own


def values_by_seed(
    results: Results, modality: str, variant: str, measure: Measure
) -> dict[int, float]:
    """What ``measure`` says of every repetition; empty when none has been run."""
    found = {}
    for cell, result in results.items():
        if (cell.modality, cell.variant) == (modality, variant):
            value = measure.value(result)
            if value is not None:
                found[cell.seed] = value
    return found


def question_table(results: Results, modality: str, question: Question) -> Table:
    """One row per variant that has been run, compared with the question's reference."""
    asked = f" ({question.asked_by})" if question.asked_by else ""
    headings = ["variant", "seeds", *(measure.heading for measure in MEASURES)]
    table = Table(f"{question.text}{asked}: {modality}", headings)
    for variant in question.variants:
        seeds = values_by_seed(results, modality, variant, MEASURES[0])
        if not seeds:
            continue
        cells = ["-" if VARIANTS[variant] is None else str(len(seeds))]
        for measure in MEASURES:
            reference = question.reference if measure.compared else None
            cells.append(_cell(results, modality, variant, reference, measure))
        table.add(f"{variant}*" if variant == question.reference else variant, cells)
    return table


def attribute_table(results: Results, modality: str) -> Table:
    """Tracked target videos by attribute, a row per variant, compared with full fine-tuning."""
    some = next(result for cell, result in results.items() if cell.modality == modality)
    measures = [
        _attribute(name, videos)
        for name, videos in some["attributes"].items()
        if len(videos) >= FEWEST
    ]
    title = f"On which videos? {modality}, mean IoU (percent) by attribute, against fft"
    table = Table(title, ["variant", *(measure.heading for measure in measures)])
    for variant in _run_variants(results, modality):
        table.add(variant, [_cell(results, modality, variant, "fft", m) for m in measures])
    return table


def _cell(
    results: Results, modality: str, variant: str, reference: str | None, measure: Measure
) -> str:
    """Mean and interval of a variant, and how far it is from ``reference`` seed by seed."""
    values = values_by_seed(results, modality, variant, measure)
    if not values:
        return "-"
    text = _text(estimate(list(values.values())))
    difference = reference and _difference(results, modality, variant, reference, measure)
    if not difference:
        return text
    number = f"{difference.mean:+.1f}"
    if not math.isnan(difference.half):
        number += f" ± {difference.half:.1f}"
    return f"{text} ({f'**{number}**' if difference.is_real else number})"


def _difference(
    results: Results, modality: str, variant: str, reference: str, measure: Measure
) -> Estimate | None:
    """How far a variant is from ``reference``; None where they share no seed, or are the same."""
    values = values_by_seed(results, modality, variant, measure)
    others = values_by_seed(results, modality, reference, measure)
    if values and VARIANTS[variant] is None:  # it is the same whatever the seed
        values = dict.fromkeys(others, *values.values())
    if variant == reference or values.keys().isdisjoint(others):
        return None
    return paired(values, others)


def multiplicity(results: Results, questions: Iterable[str]) -> str:
    """What so many comparisons at once leave of those that are bold, in a sentence."""
    found = {
        (modality, frozenset((variant, question.reference)), measure): _difference(
            results, modality, variant, question.reference, measure
        )
        for modality in _modalities(results)
        for question in map(QUESTIONS.__getitem__, questions)
        if question.concerns(modality)
        for variant in question.variants
        for measure in MEASURES
        if measure.compared
    }
    several = [each for each in found.values() if each is not None and not math.isnan(each.p)]
    return (
        f"The tables of questions compare {len(several)} pairs of numbers, of which "
        f"{sum(each.is_real for each in several)} are bold. At a false discovery rate of 5 % "
        f"(Benjamini and Hochberg, over all of them) {discoveries(several)} remain."
    )


def _text(value: Estimate) -> str:
    digits = 2 if abs(value.mean) < 3 else 1
    if math.isnan(value.half):
        return f"{value.mean:.{digits}f}"
    return f"{value.mean:.{digits}f} ± {value.half:.{digits}f}"


def write_report(results: Results, questions: Iterable[str], out: Path) -> Path:
    """Writes ``study.md`` and a figure per modality and question to ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    sections = ["# Tables of the study", LEGEND, multiplicity(results, questions)]
    for modality in _modalities(results):
        shown: list[set[str]] = [set()]
        for name in questions:
            question = QUESTIONS[name]
            table = question_table(results, modality, question)
            run = {label.removesuffix("*") for label, _ in table.rows}
            if any(run <= other for other in shown) or not question.concerns(modality):
                continue  # nothing that an earlier table does not have
            shown.append(run)
            sections.append(render(table, "markdown"))
            figure = out / f"{modality}_{name}.png"
            atomic_write(figure, partial(_draw, results, modality, question))
            sections.append(f"![What was learned and what was kept]({figure.name})")
        table = attribute_table(results, modality)
        if len(table.columns) > 1:
            sections.append(render(table, "markdown"))
    costs = cost_table(
        out, dict.fromkeys(v for name in questions for v in QUESTIONS[name].variants)
    )
    if costs is not None:
        sections += [render(costs, "markdown"), COST_LEGEND]
    file = out / "study.md"
    write_text(file, "\n\n".join(sections) + "\n")
    return file


def _draw(results: Results, modality: str, question: Question, file: Path) -> None:
    """Plasticity (target IoU) against stability (RGB IoU), a cross of intervals per variant.

    What was not trained is in the tables alone: it lies too far off for the rest to be told apart.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 4), layout="constrained")
    axes = figure.subplots()
    for variant in question.variants:
        x, y = (values_by_seed(results, modality, variant, measure) for measure in MEASURES[:2])
        if VARIANTS[variant] is None or not x:
            continue
        learned, kept = estimate(list(x.values())), estimate(list(y.values()))
        half = [0.0 if math.isnan(e.half) else e.half for e in (learned, kept)]
        axes.errorbar(learned.mean, kept.mean, half[1], half[0], fmt="o", capsize=3, label=variant)
    axes.set_xlabel("learned: IoU with both cameras (percent)")
    axes.set_ylabel("kept: IoU by RGB alone (percent)")
    figure.legend(loc="outside right upper")
    figure.savefig(file, format="png", dpi=120)


def _modalities(results: Results) -> Iterable[str]:
    return dict.fromkeys(cell.modality for cell in results)


def _run_variants(results: Results, modality: str) -> Iterable[str]:
    return dict.fromkeys(cell.variant for cell in results if cell.modality == modality)
