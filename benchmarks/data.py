"""How fast training pairs are prepared: python benchmarks/data.py

Writes 1280x720 RGB-D and RGB-T sequences to a temporary folder, then prepares the same pairs in two
ways: by ``PairDataset``, and by a straightforward loader that reads both images whole with OpenCV,
represents and merges them whole, and crops and augments in the same way. Printed are samples per
second of CPU time on one core, their ratio, the largest difference of a pixel between the two, and
the growth of the memory of the process over the run.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from ltr_ext.data.augment import View
from ltr_ext.data.crop import box_to_crop, sample_target
from ltr_ext.data.sampler import PairDataset
from ltr_ext.dataset.registry import open_dataset
from ltr_ext.dataset.synthetic import Scene, SceneOptions
from ltr_ext.models.network import NetworkSpec

SIZE = (1280, 720)


class StraightforwardPairs(PairDataset):
    """The same pairs, every frame read, represented and merged whole before the crop."""

    def _view(self, sequence, frame, around, factor, size) -> View:
        image, resize_factor = sample_target(self._frame(sequence, frame), around, factor, size)
        box = box_to_crop(sequence.boxes[frame], around, resize_factor, size) / size
        return View(image, box)

    def _frame(self, sequence, frame) -> np.ndarray:
        rgb = cv2.cvtColor(cv2.imread(str(sequence.frames.rgb_path(frame))), cv2.COLOR_BGR2RGB)
        path = str(sequence.frames.aux_path(frame))
        if sequence.modality == "thermal":
            aux = cv2.cvtColor(cv2.imread(path), cv2.COLOR_BGR2RGB)
        else:
            depth = cv2.imread(path, cv2.IMREAD_UNCHANGED)
            depth = np.minimum(depth, int(min(3 * np.median(depth), 10_000))).astype(np.uint16)
            levels = cv2.normalize(depth, None, 0, 255, cv2.NORM_MINMAX, cv2.CV_8U)
            aux = cv2.applyColorMap(levels, cv2.COLORMAP_JET)
        return cv2.merge((rgb, aux))


def write_data(root: Path, sequences: int, frames: int, target: tuple[float, float]) -> None:
    """DepthTrack and LasHeR layouts of the same scenes."""
    alone = {"distractors": (0, 0), "occluders": (0, 0)}
    options = SceneOptions(900, 700, frames, target_size=target, **alone)
    for number in range(sequences):
        scene = Scene((0, number), options)
        rgbd, rgbt = root / "rgbd" / f"s{number}", root / "rgbt" / "trainingset" / f"s{number}"
        for folder in (rgbd / "color", rgbd / "depth", rgbt / "visible", rgbt / "infrared"):
            folder.mkdir(parents=True)
        for t in range(frames):
            colour = cv2.resize(scene.rgb(t)[..., ::-1], SIZE)
            depth = cv2.resize(scene.depth(t), SIZE, interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(rgbd / "color" / f"{t:08d}.jpg"), colour)
            cv2.imwrite(str(rgbd / "depth" / f"{t:08d}.png"), depth)
            cv2.imwrite(str(rgbt / "visible" / f"{t:06d}.jpg"), colour)
            thermal = cv2.convertScaleAbs(depth, alpha=1 / 40)
            cv2.imwrite(str(rgbt / "infrared" / f"{t:06d}.jpg"), cv2.merge([thermal] * 3))
        boxes = scene.boxes * np.array([SIZE[0] / 900, SIZE[1] / 700] * 2)
        np.savetxt(rgbd / "groundtruth.txt", boxes, fmt="%.2f", delimiter=",")
        np.savetxt(rgbt / "visible.txt", np.nan_to_num(boxes), fmt="%.2f", delimiter=",")


def cpu_seconds(dataset: PairDataset, indices: range) -> float:
    start = time.process_time()
    for index in indices:
        dataset[index]
    return time.process_time() - start


def megabytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=60, help="pairs per round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, in turns; the median counts")
    parser.add_argument(
        "--target", type=float, nargs=2, default=(30, 150), help="smallest and largest side, pixels"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    spec = NetworkSpec(name="benchmark", template_size=128, search_size=256, in_channels=6)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_data(root, sequences=3, frames=20, target=tuple(arguments.target))
        for name, sub in (("depthtrack", "rgbd"), ("lasher", "rgbt")):
            data = [open_dataset(name, root / sub, "train")]
            ours, plain = (
                kind(data, None, spec, 10**9) for kind in (PairDataset, StraightforwardPairs)
            )
            difference = max(
                int((ours[i]["search"].int() - plain[i]["search"].int()).abs().max())
                for i in range(10)
            )
            before = megabytes()
            rates = []
            for number in range(arguments.rounds):
                indices = range(number * arguments.samples, (number + 1) * arguments.samples)
                rates.append([len(indices) / cpu_seconds(way, indices) for way in (plain, ours)])
            slow, fast = np.median(rates, axis=0)
            ratio = np.median([b / a for a, b in rates])
            print(
                f"{name}: {fast:.1f} pairs/s, straightforward {slow:.1f}, ratio {ratio:.2f}, "
                f"largest difference {difference}, memory +{megabytes() - before:.0f} MiB"
            )


if __name__ == "__main__":
    main()
