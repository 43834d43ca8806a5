"""Tracks a target through a video: `python -m pytracking_ext.run_video srft <param> <video>`.

pytracking's command, and what `srft track` does: two videos, image folders or cameras (RGB and
auxiliary), boxes and confidences to a file, an annotated video.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from ltr_ext.admin.environment import default_device
from pytracking_ext.commands import add_video_options
from pytracking_ext.evaluation.results import TrackResult, write_result
from pytracking_ext.evaluation.streams import Stream, open_streams
from pytracking_ext.parameter.srft import load
from pytracking_ext.tracker.srft import SRFTTracker
from srft_plugin.errors import UserError, report_errors

BOX_COLOUR = (64, 220, 64)
TEXT_COLOUR = (255, 255, 255)


def follow(
    tracker: SRFTTracker,
    rgb: Stream,
    box: Sequence[float],
    aux: Stream | None = None,
    save: Path | None = None,
    progress: bool = True,
) -> TrackResult:
    """Tracks ``box`` (xywh in the first frame) to the end of the RGB stream.

    Where the auxiliary stream ends early, tracking goes on by RGB and the frames are counted.
    Ctrl-C ends the tracking, not the program, and so does an unreadable image, or one that the
    tracker refuses (``rgb.error`` says which): what was tracked is kept.

    Args:
        tracker: of any parameter set.
        rgb: the images.
        box: the target in the first of them.
        aux: the auxiliary images, frame by frame.
        save: annotated video to write; frames of another size than the first are resized for it.
        progress: show a bar.

    Raises:
        UserError: no frames, a bad box, or a video that cannot be written.
    """
    answers: list[tuple[list[float], float, float]] = []
    writer = None
    pairs = zip(rgb, chain(aux or (), iter(lambda: None, 0)), strict=False)
    try:
        for image, other in tqdm(
            pairs, total=rgb.length, unit="frame", disable=None if progress else True
        ):
            info, began = {"aux": other}, time.perf_counter()
            if not answers:
                answer = tracker.initialize(image, info | {"init_bbox": tuple(box)})
            else:
                try:
                    answer = tracker.track(image, info)
                except UserError as error:
                    rgb.error = error
                    break
            seconds = time.perf_counter() - began
            found, confidence = answer["target_bbox"], answer["object_presence_score"]
            if save and writer is None:
                writer, size = _open_writer(save, rgb.fps, image), image.shape[1::-1]
            if writer is not None:
                frame = annotated(image, found, confidence, len(answers))
                writer.write(cv2.cvtColor(cv2.resize(frame, size), cv2.COLOR_RGB2BGR))
            answers.append((found, confidence, seconds))  # last: all of them are in the video
    except KeyboardInterrupt:
        if not answers:
            raise
        print(f"stopped after {len(answers)} frames", file=sys.stderr)
    finally:
        if writer is not None:
            writer.release()
    if not answers:
        raise rgb.error or UserError(f"{rgb.name}: no frame could be read")
    return TrackResult(*map(np.array, zip(*answers, strict=True)), tracker.aux_missing)


def annotated(
    image: np.ndarray, box: Sequence[float], confidence: float, number: int
) -> np.ndarray:
    """A copy of an RGB image with the box, its confidence and the frame's number."""
    frame = image.copy()
    x, y, w, h = (round(value) for value in box)
    thickness = max(1, round(min(image.shape[:2]) / 240))
    cv2.rectangle(frame, (x, y), (x + w, y + h), BOX_COLOUR, thickness)
    text = f"{number}  {confidence:.2f}"
    corner = (4, 8 + 12 * thickness)
    for colour, width in (((0, 0, 0), thickness + 2), (TEXT_COLOUR, thickness)):
        cv2.putText(frame, text, corner, cv2.FONT_HERSHEY_SIMPLEX, 0.4 * thickness, colour, width)
    return frame


def make_folder(path: Path) -> None:
    """Makes the folder of a file to be written; raises UserError where that is not possible."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error}; choose another folder") from error
    if not os.access(path.parent, os.W_OK):
        raise UserError(f"cannot write {path}: no right to write there; choose another folder")


def _open_writer(path: Path, fps: float, image: np.ndarray) -> cv2.VideoWriter:
    make_folder(path)
    height, width = image.shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), fps, (width, height))
    if not writer.isOpened():
        raise UserError(f"{path}: OpenCV cannot write this video; use a name that ends in .mp4")
    return writer


def check_video(path: Path, frames: int) -> None:
    """Raises UserError where fewer frames than were written can be read: OpenCV only warns then.

    They are counted one by one: what a file says of itself is a guess in some formats, and in
    others was written at its start before the disk was full.
    """
    video = cv2.VideoCapture(str(path))
    found = sum(1 for _ in iter(video.grab, False))
    if found < frames:
        raise UserError(
            f"{path} is not whole: it has {found} of {frames} frames; free some space, or choose "
            "another folder or a name that ends in .mp4"
        )


def parse_box(text: str) -> tuple[float, ...]:
    """``"x,y,w,h"``.

    Raises:
        UserError: not four numbers.
    """
    try:
        box = tuple(float(part) for part in text.replace(",", " ").split())
    except ValueError:
        box = ()
    if len(box) != 4:
        raise UserError(f"no box {text!r}; expected x,y,w,h in pixels, such as 120,80,40,60")
    return box


def track_video(
    param: str, source: str, box: Sequence[float], arguments: argparse.Namespace
) -> int:
    """Tracks by the command line's options and says where the results are."""
    if arguments.save:
        _check_target(arguments.save, source, arguments.aux)
    device = arguments.device or default_device()
    tracker = SRFTTracker(load(param, arguments.checkpoint, device, arguments.precision))
    rgb, aux = open_streams(source, arguments.aux)
    if aux and not tracker.spec.reads_aux:
        name = tracker.spec.name
        print(f"{name} reads the RGB images alone; {arguments.aux} is not used", file=sys.stderr)
    boxes = arguments.boxes
    if boxes:
        boxes = boxes if boxes.suffix == ".txt" else boxes.with_name(f"{boxes.name}.txt")
        make_folder(boxes)
    result = follow(tracker, rgb, box, aux, arguments.save)
    found: dict[str, Any] = {"frames": len(result.boxes), "rgb_only": result.aux_missing}
    if len(result.boxes) > 1:
        found["mean_confidence"] = float(result.confidences[1:].mean())
    if boxes:
        write_result(boxes.parent, boxes.stem, result)
        found["boxes"] = str(boxes)
    if arguments.save:
        found["video"] = str(arguments.save)
    print(json.dumps(found, indent=2) if arguments.json else _summary(found))
    if arguments.save:
        check_video(arguments.save, len(result.boxes))
    if rgb.error:
        raise UserError(f"{rgb.error}; the {len(result.boxes)} frames before it were tracked")
    return 0


def _check_target(save: Path, *sources: str | None) -> None:
    """Raises UserError where the annotated video would take the place of one to be read."""
    for path in (Path(source).expanduser() for source in sources if source):
        if path.is_file() and save.exists() and save.samefile(path):
            raise UserError(f"--save {save} is the video to track; choose another name")


def _summary(found: dict[str, Any]) -> str:
    lines = [f"{found['frames']} frame{'s' if found['frames'] > 1 else ''}"]
    if "mean_confidence" in found:
        lines[0] += f", mean confidence {found['mean_confidence']:.2f}"
    if found["rgb_only"]:
        lines.append(
            f"{found['rgb_only']} frames had no auxiliary image and were tracked by RGB alone"
        )
    lines += [f"{key}: {found[key]}" for key in ("boxes", "video") if key in found]
    return "\n".join(lines)


def run(arguments: argparse.Namespace) -> int:
    """The command of pytracking."""
    if arguments.optional_box is None:
        raise UserError("no window to draw the target in; give it by --optional_box x y w h")
    return track_video(
        arguments.tracker_param, arguments.videofile, arguments.optional_box, arguments
    )


def main(argv: list[str] | None = None) -> int:
    """`python -m pytracking_ext.run_video srft <param> <videofile> --optional_box x y w h`."""
    parser = argparse.ArgumentParser(description="Track a target through a video.")
    parser.add_argument("tracker_name", choices=("srft",))
    parser.add_argument("tracker_param", help="parameter set: default_rgb, or a trained config")
    parser.add_argument("videofile", help="video, image folder or camera number")
    parser.add_argument("--optional_box", type=float, nargs=4, metavar=("x", "y", "w", "h"))
    add_video_options(parser)
    return report_errors(run, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
