"""Frames per second of lock-step evaluation against one sequence at a time, as a ratio.

    python benchmarks/evaluation.py [--network two_branch_tiny] [--batch 8] [--device cpu]

RGB-D sequences (640x480, JPEG and 16-bit PNG) are written to a temporary folder, and the same
network tracks them all with ``--batch 1`` and with ``--batch B``, in alternating rounds. Decoding,
cropping and writing results are part of both; the best round of each counts.
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
from pytracking_ext.parameter.srft import TrackerParameters


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
    parser.add_argument("--network", default="two_branch_tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--sequences", type=int, default=16)
    parser.add_argument("--frames", type=int, default=20, help="per sequence, at most 150")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.manual_seed(0)
    network = build_network(arguments.network).to(arguments.device).eval()
    parameters = TrackerParameters(network, Path("random weights"), arguments.device)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_sequences(root, arguments.sequences, arguments.frames)
        dataset = open_dataset("depthtrack", root, "test")
        sequences = [dataset[index] for index in range(len(dataset))]
        rates: dict[int, list[float]] = {1: [], arguments.batch: []}
        found = {}
        for turn in range(arguments.rounds + 1):  # the first one warms up
            for batch in rates:
                out = root / f"{turn}_{batch}"
                out.mkdir()
                began = time.perf_counter()
                failures = track_dataset(
                    sequences, parameters, out, batch, arguments.threads, progress=False
                )
                seconds = time.perf_counter() - began
                assert not failures, failures
                if turn:
                    rates[batch].append(sum(map(len, sequences)) / seconds)
                found[batch] = read_predictions(out, dataset.names)
    single, together = (max(rates[batch]) for batch in rates)
    pairs = zip(found[1].values(), found[arguments.batch].values(), strict=True)
    difference = max(float(np.abs(a.boxes - b.boxes).max()) for a, b in pairs)
    print(f"{arguments.network} on {arguments.device}, {torch.get_num_threads()} threads of torch")
    print(f"one sequence at a time: {single:8.1f} frames/s")
    print(f"batches of {arguments.batch:3d}:         {together:8.1f} frames/s")
    print(f"ratio: {together / single:.2f}, boxes differ by at most {difference:.4f} px")


if __name__ == "__main__":
    main()
