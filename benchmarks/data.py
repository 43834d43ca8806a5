"""How fast training pairs are prepared: python benchmarks/data.py

Writes RGB-D and RGB-T sequences, 1280x720 by default, to a temporary folder, then prepares the same
pairs in two ways: by ``PairDataset``, and by a straightforward loader that reads both images whole
with OpenCV, represents and merges them whole, and crops and augments in the same way. Printed are
samples per second of CPU time on one core, their ratio, and the largest difference of a pixel
between the two.

``--memory 10000 --size 320 240`` watches the memory of the process instead, ``--events`` times the
event representations, ``--index`` the opening of an indexed data set of LasHeR's size,
``--generated`` the drawing of generated videos and the training pairs cut from them.
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
from ltr_ext.data.events import EVENT_FORMS, Events, render_events
from ltr_ext.data.sampler import PairDataset
from ltr_ext.dataset.files import FileFrames
from ltr_ext.dataset.index import index_path, save_index
from ltr_ext.dataset.registry import open_dataset
from ltr_ext.dataset.sequence import Sequence
from ltr_ext.dataset.synthetic import Scene, SceneOptions, SyntheticStills
from ltr_ext.models.network import NetworkSpec
from ltr_ext.models.registry import network_spec


class StraightforwardPairs(PairDataset):
    """The same pairs, every frame read, represented and merged whole before the crop."""

    def _views(self, sequence, *places) -> list[View]:
        return [self._view(sequence, *place) for place in places]

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


def write_data(
    root: Path,
    sequences: int,
    frames: int,
    target: tuple[float, float],
    size: tuple[int, int] = (1280, 720),
) -> None:
    """DepthTrack and LasHeR layouts of the same scenes, enlarged to ``size``."""
    alone = {"distractors": (0, 0), "occluders": (0, 0)}
    options = SceneOptions(900, 700, frames, target_size=target, **alone)
    for number in range(sequences):
        scene = Scene((0, number), options)
        rgbd, rgbt = root / "rgbd" / f"s{number}", root / "rgbt" / "trainingset" / f"s{number}"
        for folder in (rgbd / "color", rgbd / "depth", rgbt / "visible", rgbt / "infrared"):
            folder.mkdir(parents=True)
        for t in range(frames):
            colour = cv2.resize(scene.rgb(t)[..., ::-1], size)
            depth = cv2.resize(scene.depth(t), size, interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(rgbd / "color" / f"{t:08d}.jpg"), colour)
            cv2.imwrite(str(rgbd / "depth" / f"{t:08d}.png"), depth)
            cv2.imwrite(str(rgbt / "visible" / f"{t:06d}.jpg"), colour)
            thermal = cv2.resize(scene.thermal(t), size)
            cv2.imwrite(str(rgbt / "infrared" / f"{t:06d}.jpg"), cv2.merge([thermal] * 3))
        boxes = scene.boxes * np.array([size[0] / 900, size[1] / 700] * 2)
        np.savetxt(rgbd / "groundtruth.txt", boxes, fmt="%.2f", delimiter=",")
        np.savetxt(rgbt / "visible.txt", np.nan_to_num(boxes), fmt="%.2f", delimiter=",")


def cpu_seconds(dataset: PairDataset, indices: range) -> float:
    start = time.process_time()
    for index in indices:
        dataset[index]
    return time.process_time() - start


def print_memory(name: str, dataset: PairDataset, samples: int) -> None:
    """Resident memory after each tenth of the samples."""
    sizes = []
    for tenth in range(10):
        for index in range(tenth * samples // 10, (tenth + 1) * samples // 10):
            dataset[index]
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        sizes.append(f"{pages * resource.getpagesize() / 2**20:.0f}")
    print(f"{name}: resident memory over {samples} pairs {' '.join(sizes)} MiB", flush=True)


def print_events(count: int = 2_000_000, shape: tuple[int, int] = (260, 346)) -> None:
    """Events per second of every representation, as many as a busy second of a camera has."""
    rng = np.random.default_rng(0)
    times = np.sort(rng.integers(0, 1_000_000, count))
    columns = (rng.integers(0, side, count, dtype=np.uint16) for side in shape[::-1])
    events = Events(times, *columns, rng.random(count) < 0.5)
    for form in EVENT_FORMS:
        seconds = []
        for _ in range(5):
            start = time.process_time()
            render_events(events, shape, form)
            seconds.append(time.process_time() - start)
        print(f"{form}: {count / np.median(seconds) / 1e6:.0f} million events/s")


def print_index() -> None:
    """CPU time of opening both parts of LasHeR with an index: 1224 sequences of 600 pairs."""
    parts = {"train": ("trainingset", 979), "test": ("testingset", 245)}
    boxes = np.random.default_rng(0).uniform(1, 400, (600, 4)).round(2)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for split, (part, count) in parts.items():
            names = [f"sequence{number:04d}" for number in range(count)]
            sequences = []
            for name in names:
                place = root / part / name
                place.mkdir(parents=True)
                visible = [f"v{number:06d}.jpg" for number in range(len(boxes))]
                infrared = [f"i{number:06d}.jpg" for number in range(len(boxes))]
                frames = FileFrames(
                    place / "visible", visible, place / "infrared", infrared, "thermal"
                )
                extra = {"infrared": boxes}
                sequences.append(Sequence(name, frames, boxes, "thermal", extra))
            (root / f"{part}List.txt").write_text("\n".join(names))
            save_index(index_path(root, "lasher", split), root, names, sequences)
        start = time.process_time()
        opened = [open_dataset("lasher", root, split) for split in parts]
        seconds = time.process_time() - start
    count, pairs = sum(map(len, opened)), sum(len(s) for data in opened for s in data)
    print(f"{count} sequences with {pairs} pairs opened in {seconds:.2f} s")


def print_generated(scenes: int = 8, frames: int = 30, pairs: int = 2000) -> None:
    """Images of each camera, and pairs of `pretrain_tiny`, per second of CPU time on one core."""
    for camera in ("rgb", "depth", "thermal", "event"):
        seconds = 0.0
        for number in range(scenes):
            scene = Scene((0, number))
            for t in range(frames + 1):
                start = time.process_time()
                scene.rgb(t) if camera == "rgb" else scene.aux(t, camera)
                seconds += (time.process_time() - start) * (t > 0)  # the first also sets up
        print(f"{camera}: {scenes * frames / seconds:.0f} images/s")
    stills = SyntheticStills(scenes, 0, SceneOptions())
    dataset = PairDataset([stills], None, network_spec("ostrack_tiny"), pairs)
    cpu_seconds(dataset, range(10 * scenes))  # draws all scenes
    print(f"pairs of drawn stills: {pairs / cpu_seconds(dataset, range(pairs)):.0f} pairs/s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=60, help="pairs per round")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, in turns; the median counts")
    parser.add_argument(
        "--target", type=float, nargs=2, default=(30, 150), help="smallest and largest side, pixels"
    )
    parser.add_argument("--size", type=int, nargs=2, default=(1280, 720), help="of the images")
    parser.add_argument("--memory", type=int, help="only watch the memory over so many pairs")
    parser.add_argument("--events", action="store_true", help="only the event representations")
    parser.add_argument("--index", action="store_true", help="only opening with an index")
    parser.add_argument("--generated", action="store_true", help="only generated videos")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(0)
    if arguments.events:
        return print_events()
    if arguments.index:
        return print_index()
    if arguments.generated:
        return print_generated()
    spec = NetworkSpec(name="benchmark", template_size=128, search_size=256, in_channels=6)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_data(root, 3, 20, tuple(arguments.target), tuple(arguments.size))
        for name, sub in (("depthtrack", "rgbd"), ("lasher", "rgbt")):
            data = [open_dataset(name, root / sub, "train")]
            ours, plain = (
                kind(data, None, spec, 10**9) for kind in (PairDataset, StraightforwardPairs)
            )
            if arguments.memory:
                print_memory(name, ours, arguments.memory)
                continue
            difference = max(
                int((ours[i]["search"].int() - plain[i]["search"].int()).abs().max())
                for i in range(10)
            )
            rates = []
            for number in range(arguments.rounds):
                indices = range(number * arguments.samples, (number + 1) * arguments.samples)
                rates.append([len(indices) / cpu_seconds(way, indices) for way in (plain, ours)])
            slow, fast = np.median(rates, axis=0)
            ratio = np.median([b / a for a, b in rates])
            print(
                f"{name}: {fast:.1f} pairs/s, straightforward {slow:.1f}, ratio {ratio:.2f}, "
                f"largest difference {difference}"
            )


if __name__ == "__main__":
    main()
