"""Draws cameras.png and event_forms.png beside itself: python docs/figures/cameras.py"""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from ltr_ext.data.events import EVENT_FORMS
from ltr_ext.data.representation import MODALITIES, represent
from ltr_ext.dataset.synthetic import Scene, visible_scene
from ltr_ext.dataset.training_sets import RGBX_OPTIONS

FOLDER = Path(__file__).parent
GAP = 4  # pixels between the pictures


def mark_target(image: np.ndarray, scene: Scene, t: int) -> np.ndarray:
    x, y, w, h = np.round(scene.boxes[t]).astype(int)
    return cv2.rectangle(np.ascontiguousarray(image), (x, y), (x + w, y + h), (0, 255, 0), 2)


def tile(rows: list[list[np.ndarray]]) -> np.ndarray:
    """Pictures in rows, half as large, on white."""
    border = {"borderType": cv2.BORDER_CONSTANT, "value": (255, 255, 255)}
    framed = [
        [
            cv2.copyMakeBorder(
                cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA),
                *(0, GAP, 0, GAP),
                **border,
            )
            for image in row
        ]
        for row in rows
    ]
    return np.vstack([np.hstack(row) for row in framed])


def write(name: str, picture: np.ndarray) -> None:
    cv2.imwrite(str(FOLDER / name), picture[..., ::-1], [cv2.IMWRITE_PNG_COMPRESSION, 9])


def main() -> None:
    options = replace(RGBX_OPTIONS, failure=0.0)
    lively = replace(options, limbs=(2, 3), tilt=0.3, dark=0.0)
    moments = [(visible_scene((7, seed), options), 25) for seed in (1, 2)]
    moments.append((visible_scene((7, 16), lively), 25))
    rows = []
    for scene, t in moments:
        aux = [represent(scene.aux(t, modality), modality) for modality in MODALITIES]
        rows.append([mark_target(image, scene, t) for image in (scene.rgb(t), *aux)])
    write("cameras.png", tile(rows))
    scene, t = moments[1]
    images = [scene.aux(t, "event", form) for form in EVENT_FORMS]
    write("event_forms.png", tile([images[:3], images[3:]]))


if __name__ == "__main__":
    main()
