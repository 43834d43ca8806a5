"""What the official evaluation costs: TraX per frame and per start, and the ways around it.

    python benchmarks/vot.py [--network two_branch_tiny] [--sequences 6] [--frames 100]

Generated RGB-D sequences (320x240) go into a workspace. Measured are the plain `vot evaluate` and
`srft vot evaluate` with one job, with `--jobs`, and in process with and without batches, each from
the start of a fresh Python to its end. Processor time is also given, since it hardly depends on
what else the machine does. A tracker that only answers, on two lengths of the same sequence, splits
the protocol's own cost into a start and a frame.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from ltr_ext.dataset.synthetic.dataset import write_depthtrack
from ltr_ext.dataset.synthetic.scene import Scene, SceneOptions
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


def seconds(workspace: Path, *command: str) -> np.ndarray:
    """Wall time and processor time of an evaluation from scratch, trackers included."""
    shutil.rmtree(workspace / "results")
    (workspace / "results").mkdir()
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, check=True, cwd=workspace, capture_output=True)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return np.array((wall, used))


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="two_branch_tiny")
    parser.add_argument("--sequences", type=int, default=6)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        print_protocol(root / "protocol")
        print_ratios(root / "ratios", options)


def print_protocol(root: Path) -> None:
    """Cost of a start and of a frame, from sequences of two lengths."""
    times = []
    for length in LENGTHS:
        scene = Scene((0, 0), SceneOptions(length=length))
        data = write_depthtrack(root / f"data{length}", {"scene": scene})
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
        f"scene{index}": Scene((0, index), SceneOptions(length=options.frames))
        for index in range(options.sequences)
    }
    data = write_depthtrack(root / "data", scenes)
    network = root / "network.safetensors"
    save_network(build_network(options.network), network)
    directory = create_workspace(
        root / "w", data, "bench", checkpoint=network, device=options.device, name="bench"
    ).directory
    own = (*SRFT, str(directory))
    ways = {
        "vot evaluate": (str(Path(sys.executable).with_name("vot")), "evaluate", "bench"),
        "srft vot evaluate": own,
        f"--jobs {options.jobs}": (*own, "--jobs", str(options.jobs)),
        "--in-process --batch 1": (*own, "--in-process", "--batch", "1"),
        f"--in-process --batch {options.batch}": (
            *own,
            "--in-process",
            "--batch",
            str(options.batch),
        ),
    }
    print(f"{options.sequences} sequences of {options.frames} frames, {options.network}")
    print(f"{'':26}{'wall s':>8}{'cpu s':>8}   ratio to vot evaluate, wall and cpu")
    times: dict[str, np.ndarray] = {}
    for name, command in ways.items():
        times[name] = seconds(directory, *command)
        ratio = times["vot evaluate"] / times[name]
        print(f"{name:26}{times[name][0]:8.1f}{times[name][1]:8.1f}{ratio[0]:8.2f}{ratio[1]:8.2f}")
    jobs = times["srft vot evaluate"][0] / times[f"--jobs {options.jobs}"][0]
    print(f"--jobs {options.jobs} against one job: {jobs:.2f}")


if __name__ == "__main__":
    main()
