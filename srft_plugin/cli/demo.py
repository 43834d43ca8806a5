"""`srft demo`: the main job on generated data, from RGB tracker to official RGB-D scores."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import shutil
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from ltr_ext.admin.environment import device_name
from srft_plugin.errors import UserError

DESCRIPTION = """
Fine-tunes the bundled RGB tracker for RGB-D on a generated data set, once by full fine-tuning and
once by SRFT, scores both with the official VOT toolkit, and measures what they forgot of RGB. No
download, no GPU.
"""
# The trackers that are compared, and how the tables call them.
TRACKERS = {
    "rgb": "RGB tracker",
    "untuned": "two branches, not tuned",
    "fft": "full fine-tuning",
    "srft": "SRFT",
}


@dataclass(frozen=True)
class DemoSize:
    """How much the demo generates and trains."""

    train_sequences: int
    train_length: int
    test_sequences: int
    test_length: int
    rgb_sequences: int
    epochs: int
    samples_per_epoch: int
    prior_samples: int


SIZES = {
    "default": DemoSize(8, 60, 8, 100, 8, 3, 640, 128),
    "smoke": DemoSize(3, 20, 2, 25, 1, 1, 32, 16),
}


def add_commands(subparsers) -> None:
    """Mounts `srft demo`."""
    parser = subparsers.add_parser(
        "demo", help="the main job on generated data, in minutes on a CPU", description=DESCRIPTION
    )
    parser.add_argument(
        "--out", type=Path, default=Path("srft-demo"), help="folder to work in (default srft-demo)"
    )
    parser.add_argument("--size", choices=SIZES, default="default", help="smoke: the smallest")
    parser.add_argument("--seed", type=int, default=0, help="of data and training (default 0)")
    parser.add_argument("--device", type=device_name, default="cpu", help="default: cpu")
    parser.add_argument("--fresh", action="store_true", help="discard what --out already holds")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Runs the demo; a run that was stopped continues where it was."""
    from ltr_ext.admin.files import write_text
    from pytracking_ext.analysis.tables import render
    from vot_integration.workspace import require_toolkit

    from .demo_report import scores_table, write_report

    require_toolkit()  # before minutes of training
    began = time.perf_counter()
    demo = Demo(arguments.out, SIZES[arguments.size], arguments.seed, arguments.device)
    demo.claim_folder(arguments.size, arguments.fresh)
    with contextlib.redirect_stdout(sys.stderr if arguments.json else sys.stdout):
        scores = demo.run()
    seconds = time.perf_counter() - began
    text = json.dumps({"seconds": seconds, "scores": scores}, indent=2)
    write_text(arguments.out / "scores.json", f"{text}\n")
    table = scores_table(scores)
    report = write_report(demo, table, scores)
    if arguments.json:
        print(text)
        return 0
    print(f"\n{render(table)}")
    print(f"report: {report}")
    print(f"VOT workspace: {demo.workspace}   time: {seconds:.0f} s")
    return 0


# In the folder of a demo.
MADE = {"demo.json", "data", "runs", "vot", "report.html", "sensitivity.png"}


class Demo:
    """The steps of the demo, each of which keeps what an earlier run has finished.

    Args:
        folder: everything is written below it.
        size: how much to generate and train.
        seed: seeds data and training.
        device: where to train and to track the RGB videos; the toolkit's trackers use the CPU.
    """

    def __init__(self, folder: Path, size: DemoSize, seed: int, device: str):
        self.folder, self.size, self.seed, self.device = folder.resolve(), size, seed, device
        self.train_set, self.test_set = self.folder / "data/train", self.folder / "data/test"
        self.workspace = self.folder / "vot"

    def claim_folder(self, size: str, fresh: bool) -> None:
        """Makes sure that the folder is ours and was begun with the same settings.

        Raises:
            UserError: it holds something else.
        """
        from ltr_ext.admin.files import write_text

        if self.seed < 0:
            raise UserError(f"the seed is {self.seed}; expected a number from 0 on")
        stamp = self.folder / "demo.json"
        settings = {"size": size, "seed": self.seed}
        if self.folder.exists() and not self.folder.is_dir():
            raise UserError(f"{self.folder} is no folder; choose another --out")
        text = json.dumps(settings)
        found = stamp.read_text("utf-8", "replace") if stamp.exists() else None
        ours = found is not None and _is_stamp(found, self.folder)
        if ours and fresh:
            shutil.rmtree(self.folder)
        elif ours and found != text:
            raise UserError(
                f"{self.folder} holds a demo with other settings ({found}); choose another --out, "
                "or --fresh to discard it"
            )
        if not ours and self.folder.exists() and any(self.folder.iterdir()):
            raise UserError(f"{self.folder} is not empty and not a demo; choose another --out")
        write_text(stamp, text)

    def run(self) -> dict[str, dict[str, Any]]:
        """All steps; scores of each tracker by name."""
        self.write_data()
        networks = self.train()
        scores = self.evaluate(networks)
        for name, score in self.measure_rgb(networks).items():
            scores[name] |= score
        return scores

    def write_data(self) -> None:
        """RGB-D training set in DepthTrack layout, test set in VOT layout, disjoint textures."""
        from ltr_ext.dataset.synthetic import visible_scene, write_sequences
        from ltr_ext.dataset.training_sets import RGBD_OPTIONS

        size = self.size
        for root, seed, texture_seed, count, length in (
            (self.train_set, 100, 1, size.train_sequences, size.train_length),
            (self.test_set, 200, 2, size.test_sequences, size.test_length),
        ):
            options = dataclasses.replace(RGBD_OPTIONS, length=length, texture_seed=texture_seed)
            scenes = {
                f"{root.name}{i:03d}": visible_scene((seed, self.seed, i), options)
                for i in range(count)
            }
            write_sequences(root, scenes, f"{root.name} set")

    def recipe(self, regularizer: str):
        """The recipe `tiny_depth` on the demo's data."""
        from ltr_ext.recipe import load_recipe

        return dataclasses.replace(
            load_recipe("tiny_depth"),
            datasets=(f"depthtrack:{self.train_set}",),
            regularizer=regularizer,
            epochs=self.size.epochs,
            samples_per_epoch=self.size.samples_per_epoch,
            prior_samples=self.size.prior_samples,
            seed=self.seed,
        )

    def run_folder(self, name: str) -> Path:
        """Checkpoints, log and prior of one fine-tuning."""
        from ltr_ext.run_training import run_dir

        return run_dir(name, self.folder / "runs")

    def train(self) -> dict[str, Path]:
        """Network file of each tracker; both fine-tunings have the same seed and budget."""
        from ltr_ext.admin.files import atomic_write
        from ltr_ext.models.checkpoint import BUNDLED, load_network, save_network
        from ltr_ext.models.two_branch import two_branch_from
        from ltr_ext.run_training import train

        untuned = self.folder / "runs/untuned.safetensors"
        network = two_branch_from(load_network(BUNDLED))
        atomic_write(untuned, lambda file: save_network(network, file))
        networks = {"rgb": BUNDLED, "untuned": untuned}
        for name, regularizer in (("fft", "none"), ("srft", "srft")):
            print(f"fine-tuning: {TRACKERS[name]}")
            networks[name] = train(self.recipe(regularizer), self.run_folder(name), self.device)
        return networks

    def evaluate(self, networks: dict[str, Path]) -> dict[str, dict[str, Any]]:
        """Pr, Re and F of each tracker by the VOT toolkit, long-term protocol."""
        from vot_integration.analysis import analyse
        from vot_integration.runner import evaluate
        from vot_integration.workspace import create_workspace

        for name, file in networks.items():
            create_workspace(
                self.workspace,
                self.test_set,
                tracker_param="default_rgb",
                checkpoint=file,
                name=name,
            )
        total = len(networks) * self.size.test_sequences
        with tqdm(total=total, desc="VOT toolkit", unit="seq", disable=None) as bar:
            evaluate(self.workspace, progress=lambda _: bar.update())
        return analyse(self.workspace)

    def measure_rgb(self, networks: dict[str, Path]) -> dict[str, dict[str, Any]]:
        """Mean IoU on held-out RGB videos, where both branches see the RGB image; frames/s."""
        from ltr_ext.dataset.synthetic import SceneOptions, Synthetic
        from pytracking_ext.evaluation.running import judged_overlaps, track_sequence
        from pytracking_ext.parameter.srft import load
        from pytracking_ext.tracker.srft import SRFTTracker

        options = SceneOptions(length=self.size.test_length, texture_seed=2, dark=0.0)
        videos = Synthetic(self.size.rgb_sequences, 300 + self.seed, options, name="rgb")
        scores = {}
        with tqdm(
            total=len(networks) * len(videos), desc="RGB videos", unit="seq", disable=None
        ) as bar:
            for name, file in networks.items():
                overlaps, seconds = [], 0.0
                for index in range(len(videos)):
                    video = videos[index]
                    tracker = SRFTTracker(load("default_rgb", checkpoint=file, device=self.device))
                    result = track_sequence(tracker, video)
                    overlaps.append(judged_overlaps(result, video))
                    seconds += result.times[1:].sum()
                    bar.update()
                frames = len(videos) * (self.size.test_length - 1)
                scores[name] = {
                    "rgb_iou": float(np.concatenate(overlaps).mean()),
                    "frames_per_second": frames / seconds,
                }
        return scores


def _is_stamp(text: str, folder: Path) -> bool:
    """Whether ``folder``, whose ``demo.json`` says this, is a demo's: others use that name, too.

    A damaged file does not tell; then a demo's folder holds nothing but what a demo makes.
    """
    try:
        found = json.loads(text)
    except ValueError:
        return {path.name for path in folder.iterdir()} <= MADE
    return isinstance(found, dict) and found.keys() == {"size", "seed"}
