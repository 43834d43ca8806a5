"""The demo's table on the terminal and its report: one HTML file with the pictures in it."""

from __future__ import annotations

import base64
import html
import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from pytracking_ext.analysis.tables import Table

COLUMNS = {
    "Pr": ("Pr", "{:.3f}"),
    "Re": ("Re", "{:.3f}"),
    "F": ("F-score", "{:.3f}"),
    "rgb_iou": ("RGB IoU", "{:.3f}"),
    "rgb_change": ("change", "{:+.3f}"),
    "frames_per_second": ("frames/s", "{:.0f}"),
}
_COLOURS = {
    "rgb": (60, 130, 255),
    "untuned": (255, 160, 0),
    "fft": (230, 30, 90),
    "srft": (0, 190, 90),
}


def scores_table(scores: dict[str, dict[str, Any]]) -> Table:
    """RGB-D by the VOT toolkit, and RGB before and after."""
    from .demo import TRACKERS

    before = scores["rgb"]["rgb_iou"]
    table = Table(
        "RGB-D: VOT toolkit, long-term protocol; RGB: mean IoU on held-out RGB videos",
        ["tracker", *(title for title, _ in COLUMNS.values())],
    )
    for name, label in TRACKERS.items():
        values = scores[name] | {"rgb_change": scores[name]["rgb_iou"] - before}
        table.add(label, [text.format(values[key]) for key, (_, text) in COLUMNS.items()])
    return table


def write_report(demo, table: Table, scores: dict[str, dict[str, Any]]) -> Path:
    """Writes ``report.html``, self-contained, and returns its path."""
    from pytracking_ext.report.layout import section, table_html, write_page

    summary = f"""<p>The bundled RGB tracker, fine-tuned for RGB-D on {demo.size.train_sequences}
generated videos with the same seed and budget ({demo.recipe("srft").total_steps} steps). Pr, Re and
F-score are the VOT toolkit's (long-term protocol, {demo.size.test_sequences} unseen RGB-D videos);
RGB IoU is the mean overlap on {demo.size.rgb_sequences} unseen RGB videos, its change what
fine-tuning did to it. One seed on a small set: differences of a few hundredths may be chance.
</p>"""
    sensitivity_caption = (
        "Prior sensitivity of the RGB tracker: mean of the ten largest Fisher eigenvalues per "
        "operation (Eq. 8), logarithmic."
    )
    strip_caption = (
        "Test videos over time, colour and depth. White: ground truth; blue: RGB tracker; orange: "
        "not tuned; red: full fine-tuning; green: SRFT."
    )
    sections = [
        section("Scores", summary + table_html(table)),
        _figure(_scores_plot(scores), "Scores on RGB-D and on RGB."),
        _figure(_training_plot(demo), "Training: loss and IoU of the training pairs."),
        _figure(_sensitivity_plot(demo), sensitivity_caption),
        _figure(_strip(demo), strip_caption),
    ]
    file = demo.folder / "report.html"
    write_page(file, "SRFT demo", sections)
    return file


def _figure(png: bytes, caption: str) -> str:
    data = base64.b64encode(png).decode("ascii")
    text = html.escape(caption)
    return (
        f'<figure><img style="max-width: 100%" alt="{text}" src="data:image/png;base64,{data}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _axes():
    """A figure with two axes side by side that needs no display."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 3.4), layout="constrained")
    return figure, figure.subplots(1, 2)


def _png(figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def _hex(name: str) -> str:
    return "#{:02x}{:02x}{:02x}".format(*_COLOURS[name])


def _scores_plot(scores) -> bytes:
    from .demo import TRACKERS

    figure, (left, right) = _axes()
    for offset, (name, label) in enumerate(TRACKERS.items()):
        colour = _hex(name)
        values = [scores[name][key] for key in ("Pr", "Re", "F")]
        left.bar(np.arange(3) + 0.2 * (offset - 1.5), values, 0.18, color=colour, label=label)
        right.bar(offset, scores[name]["rgb_iou"], 0.6, color=colour)
    figure.legend(loc="outside upper center", ncols=len(TRACKERS), fontsize=8)
    left.set_xticks(range(3), ("Pr", "Re", "F-score"))
    left.set_ylim(0, 1)
    left.set_title("RGB-D (VOT toolkit)")
    right.set_xticks([])
    right.set_ylim(0, 1)
    right.set_title("RGB: mean IoU")
    return _png(figure)


def _training_plot(demo) -> bytes:
    from ltr_ext.trainers.log import FILE, read_log
    from srft_plugin.plots import training_curves

    from .demo import TRACKERS

    names = ("fft", "srft")
    runs = {TRACKERS[name]: read_log(demo.run_folder(name) / FILE) for name in names}
    return _png(training_curves(runs, {TRACKERS[name]: _hex(name) for name in names}))


def _sensitivity_plot(demo) -> bytes:
    from ltr_ext.priors import PRIORS
    from srft_plugin.plots import sensitivity_map
    from srft_plugin.prior import Prior

    file = demo.folder / "sensitivity.png"
    sensitivity_map(Prior.load(demo.run_folder("srft") / PRIORS[Prior]), file)
    return file.read_bytes()


def _strip(demo, videos: int = 4, moments: int = 6) -> bytes:
    """Frames of some test videos with the boxes of all trackers, colour above depth."""
    from ltr_ext.dataset.registry import open_dataset
    from pytracking_ext.evaluation.loading import read_result_boxes
    from vot_integration.workspace import LONG_TERM

    tests = open_dataset("depthtrack", demo.test_set, "test")
    bands = []
    for index in range(min(videos, len(tests))):
        sequence = tests[index]
        results = f"{LONG_TERM.experiment}/{sequence.name}/{sequence.name}_001.bin"
        boxes = {
            name: read_result_boxes(demo.workspace / "results" / name / results)
            for name in _COLOURS
        }
        times = np.linspace(0, len(sequence) - 1, moments).astype(int)
        columns = []
        for t in times:
            image = np.vstack([sequence.frames.rgb(t), sequence.frames.aux(t)])
            below = np.array([0, len(image) // 2, 0, 0])
            for box, colour in [
                (sequence.boxes[t], (255, 255, 255)),
                *((boxes[name][t], colour) for name, colour in _COLOURS.items()),
            ]:
                if np.isfinite(box).all():
                    for shifted in (box, box + below):
                        x, y, w, h = np.round(shifted).astype(int).tolist()
                        cv2.rectangle(image, (x, y), (x + w, y + h), colour, 2)
            columns.append(cv2.resize(image, None, fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA))
        bands.append(np.hstack(columns))
    picture = cv2.cvtColor(np.vstack(bands), cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", picture)[1].tobytes()
