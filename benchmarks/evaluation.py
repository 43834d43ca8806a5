"""Frames per second of lock-step evaluation against one sequence at a time, as a ratio.

    python benchmarks/evaluation.py [--network two_branch_tiny] [--batch 8] [--device cpu]

RGB-D sequences (640x480, JPEG and 16-bit PNG) are written to a temporary folder, and the same
network tracks them all with ``--batch 1`` and with ``--batch B``, in alternating rounds. Decoding,
cropping and writing results are part of both; the best round of each counts. The ratio of processor
times hardly depends on what else the machine does, but for threads of torch that wait for a core.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
import torch

from ltr_ext.dataset.registry import open_dataset
from ltr_ext.models.registry import build_network
from pytracking_ext.evaluation.loading import read_predictions
from pytracking_ext.evaluation.running import track_dataset
from pytracking_ext.parameter.srft import TrackerParameters, in_engine, load


def write_sequences(root: Path, count: int, frames: int, seed: int = 0) -> None:
    """A textured square before a textured background, with its depth, in DepthTrack's layout."""
    rng = np.random.default_rng(seed)
    for index in range(count):
        folder = root / "test" / f"sequence{index:02d}"
        for kind in ("color", "depth"):
            (folder / kind).mkdir(parents=True)
        ground = cv2.resize(rng.integers(0, 255, (30, 40, 3), np.uint8), (640, 480))
        target = cv2.resize(rng.integers(0, 255, (8, 8, 3), np.uint8), (64, 64))
        boxes = []
        for frame in range(frames):
            x, y = 100 + 3 * frame, 200 + int(40 * np.sin(frame / 6 + index))
            image, depth = ground.copy(), np.full((480, 640), 3000, np.uint16)
            image[y : y + 64, x : x + 64] = target
            depth[y : y + 64, x : x + 64] = 1200
            cv2.imwrite(str(folder / "color" / f"{frame + 1:08d}.jpg"), image)
            cv2.imwrite(str(folder / "depth" / f"{frame + 1:08d}.png"), depth)
            boxes.append((x, y, 64, 64))
        np.savetxt(folder / "groundtruth.txt", boxes, delimiter=",", fmt="%d")


def main() -> None:
    """Prints the two rates, their ratio, and the largest difference of the boxes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", help="with random weights; default: the bundled tracker")
    parser.add_argument("--precision", help="of the engine; default: the network as it is")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--frames", type=int, default=20, help="per sequence, at most 150")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    if arguments.network is None:
        parameters = load("default_rgb", device=arguments.device)
    else:
        network = build_network(arguments.network).to(arguments.device).eval()
        network.metadata = {"modality": "depth"}
        parameters = TrackerParameters(network, Path("random weights"), arguments.device)
    if arguments.precision is not None:
        parameters = in_engine(parameters, arguments.precision)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_sequences(root, arguments.sequences, arguments.frames)
        dataset = open_dataset("depthtrack", root, "test")
        sequences = [dataset[index] for index in range(len(dataset))]
        taken = {batch: np.full(2, np.inf) for batch in (1, arguments.batch)}
        found = {}
        for turn in range(arguments.rounds + 1):  # the first one warms up
            for batch in taken:
                out = root / f"{turn}_{batch}"
                out.mkdir()
                began = np.array((time.perf_counter(), time.process_time()))
                failures = track_dataset(
                    sequences, parameters, out, batch, arguments.threads, progress=False
                )
                ended = np.array((time.perf_counter(), time.process_time()))
                assert not failures, failures
                if turn:
                    taken[batch] = np.minimum(taken[batch], ended - began)
                found[batch] = read_predictions(out, dataset.names)
    frames = sum(map(len, sequences))
    pairs = zip(found[1].values(), found[arguments.batch].values(), strict=True)
    difference = max(float(np.abs(a.boxes - b.boxes).max()) for a, b in pairs)
    name = arguments.network or "bundled tracker"
    print(f"{name} on {arguments.device}, {torch.get_num_threads()} threads of torch")
    for batch, (wall, cpu) in taken.items():
        print(f"batch {batch:3d}: {frames / wall:8.1f} frames/s, {1000 * cpu / frames:7.1f} ms cpu")
    wall, cpu = taken[1] / taken[arguments.batch]
    print(f"ratio: {wall:.2f}, cpu {cpu:.2f}; boxes differ by at most {difference:.4f} px")


if __name__ == "__main__":
    main()
