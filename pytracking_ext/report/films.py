"""Short films of a sequence: frames with the boxes of every tracker (Fig. 10)."""

from __future__ import annotations

import base64
import json
from html import escape

import cv2
import numpy as np

from ltr_ext.dataset.sequence import Sequence
from pytracking_ext.analysis.frames import Prediction

FRAMES, WIDTH, QUALITY = 16, 320, 70


def film(sequence: Sequence, predictions: list[Prediction], caption: str) -> str:
    """HTML of one film: up to ``FRAMES`` frames, evenly spread, with a slider and a play button.

    The boxes are those of the ground truth and of ``predictions`` in the order of their colours.
    """
    chosen = np.unique(np.linspace(0, len(sequence) - 1, FRAMES).round().astype(int))
    sources = [sequence.boxes, *(prediction.boxes for prediction in predictions)]
    pictures, tracks, shape = [], [[] for _ in sources], (0, 0)
    for index in chosen:
        picture, scale = _thumbnail(sequence.frames.rgb(int(index)))
        shape = picture.shape[:2]
        pictures.append(_data_uri(picture))
        for track, boxes in zip(tracks, sources, strict=True):
            there = index < len(boxes)  # some benchmarks score results that end early
            track.append(_box(boxes[index], scale) if there else None)
    shown = {"frames": chosen.tolist(), "pictures": pictures, "tracks": tracks}
    return (
        f'<figure class="film"><figcaption><b>{escape(sequence.name)}</b> {escape(caption)}'
        f'</figcaption><canvas width="{shape[1]}" height="{shape[0]}"></canvas>'
        '<div class="controls"><button type="button">play</button>'
        f'<input type="range" min="0" max="{len(chosen) - 1}" value="0" aria-label="frame">'
        "<output></output></div>"
        f'<script type="application/json">{_script_json(shown)}</script></figure>'
    )


def _thumbnail(image: np.ndarray) -> tuple[np.ndarray, float]:
    scale = min(1.0, WIDTH / image.shape[1])
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), scale


def _data_uri(image: np.ndarray) -> str:
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def _box(box: np.ndarray, scale: float) -> list[float] | None:
    return [round(float(value) * scale, 1) for value in box] if np.isfinite(box).all() else None


def _script_json(value: object) -> str:
    """JSON that cannot end the script element that holds it."""
    return json.dumps(value, separators=(",", ":")).replace("</", "<\\/")
