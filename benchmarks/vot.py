"""What the official evaluation costs: TraX per frame and per start, and the ways around it.

    python benchmarks/vot.py [--network two_branch_tiny] [--sequences 6] [--frames 100]

Generated RGB-D sequences (320x240) go into a workspace. Measured are the plain `vot evaluate` and
`srft vot evaluate` with one job (with all cores for torch, and with one), with `--jobs`, and in
process with and without batches and jobs, each from the start of a fresh Python to its end, in
alternating rounds of which the fastest counts. Processor time is also given, since it hardly
depends on what else the machine does. A tracker that only answers, on two lengths of the same
sequence, splits the protocol's own cost into a start and a frame.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ltr_ext.dataset.synthetic import SceneOptions, visible_scene, write_sequences
from ltr_ext.models.checkpoint import save_network
from ltr_ext.models.registry import build_network
from vot_integration.workspace import create_workspace

LENGTHS = (50, 550)
SRFT = (sys.executable, "-m", "srft_plugin.cli", "vot", "evaluate")


class Still:
    """Reports the first box for ever and does not look at the images."""

    def initialize(self, image, info):
        self.box = info["init_bbox"]

    def track(self, image, info):
        return {"target_bbox": self.box, "object_presence_score": 0.5}


def still(checkpoint: str | None, device: str) -> Still:
    """Factory for the server."""
    return Still()


def seconds(workspace: Path, *command: str, threads: str | None = None) -> np.ndarray:
    """Wall time and processor time of an evaluation from scratch, trackers included."""
    environment = os.environ | ({"OMP_NUM_THREADS": threads} if threads else {})
    shutil.rmtree(workspace / "results")
    (workspace / "results").mkdir()
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, cwd=workspace, capture_output=True, env=environment)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return np.array((wall, used))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", help="with random weights; default: the bundled tracker")
    parser.add_argument("--sequences", type=int, default=6)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        print_protocol(root / "protocol")
        print_ratios(root / "ratios", options)


def print_protocol(root: Path) -> None:
    """Cost of a start and of a frame, from sequences of two lengths."""
    times = []
    for length in LENGTHS:
        scene = visible_scene((0, 0), SceneOptions(length=length))
        data = write_sequences(root / f"data{length}", {"scene": scene})
        workspace = create_workspace(
            root / f"w{length}", data, "vot:still", name="still", paths=[Path(__file__).parent]
        )
        command = (*SRFT, str(workspace.directory))
        times.append(np.min([seconds(workspace.directory, *command) for _ in range(2)], 0))
    frame = (times[1] - times[0]) / (LENGTHS[1] - LENGTHS[0])
    start = times[0] - LENGTHS[0] * frame
    print("wall, processor: with a tracker that only answers (images are decoded)")
    print(f"per frame {1000 * frame[0]:.2f}, {1000 * frame[1]:.2f} ms")
    print(f"per start {start[0]:.2f}, {start[1]:.2f} s", flush=True)


def print_ratios(root: Path, options: argparse.Namespace) -> None:
    """Wall times of the ways to evaluate the same sequences, and their ratios."""
    scenes = {
        f"scene{index}": visible_scene((0, index), SceneOptions(length=options.frames))
        for index in range(options.sequences)
    }
    data = write_sequences(root / "data", scenes)
    checkpoint = None
    if options.network is not None:
        checkpoint = root / "network.safetensors"
        save_network(build_network(options.network), checkpoint)
    directory = create_workspace(
        root / "w", data, "default_rgb", checkpoint, device=options.device, name="bench"
    ).directory
    own, jobs, batch = (*SRFT, str(directory)), f"--jobs {options.jobs}", f"--batch {options.batch}"
    one, alone, plain = "srft vot evaluate", "one thread of torch", "vot evaluate"
    ways = {plain: (str(Path(sys.executable).with_name("vot")), "evaluate", "bench")} | {
        way: (*own, *extra.split())
        for way, extra in (
            (one, ""),
            (alone, ""),
            (jobs, jobs),
            ("--in-process --batch 1", "--in-process --batch 1"),
            (f"--in-process {batch}", f"--in-process {batch}"),
            (f"--in-process {jobs} {batch}", f"--in-process {jobs} {batch}"),
        )
    }
    times = {way: np.full(2, np.inf) for way in ways}
    for _ in range(options.rounds):
        for way, command in ways.items():
            taken = seconds(directory, *command, threads="1" if way == alone else None)
            times[way] = np.minimum(times[way], taken)
    name = options.network or "bundled tracker"
    print(f"{options.sequences} sequences of {options.frames} frames, {name}")
    print(f"{'':34}{'wall s':>8}{'cpu s':>8}   ratio to vot evaluate, wall and cpu")
    for way, taken in times.items():
        ratio = times[plain] / taken
        print(f"{way:34}{taken[0]:8.1f}{taken[1]:8.1f}{ratio[0]:8.2f}{ratio[1]:8.2f}")
    print(f"{jobs} against one job: {times[one][0] / times[jobs][0]:.2f}, against one job with one "
          f"thread: {times[alone][0] / times[jobs][0]:.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
