"""The trackers of a finished study on more test videos: does a difference rest on a few of them?

    python benchmarks/study_videos.py FOLDER [--base FILE] [--videos 40] [--modality depth] \
        [--json FILE]

FOLDER is that of `srft study run`, with its trained networks; `--base` as there. The videos
continue the study's test videos by the same generator and settings. Prints, per cent, the mean IoU
with both cameras (target) and by RGB; in brackets the difference to SRFT: half its 95 % intervals
over videos (of the means over seeds) and over seeds (of the means over videos), and on how many
videos it is above 0. What was measured is kept in FILE, and read from there the next time.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ltr_ext.models.checkpoint import BUNDLED, load_network
from ltr_ext.trainers.trainer import NETWORK
from pytracking_ext.parameter.srft import from_checkpoint
from pytracking_ext.study.cell import ORIGIN, tracked_ious
from pytracking_ext.study.data import StudyData
from pytracking_ext.study.plan import BUDGETS
from pytracking_ext.study.statistics import estimate
from srft_plugin.prior.estimate import weights_sha256

REFERENCE = "srft"


def networks(folder: Path) -> dict[str, list[Path]]:
    """Files of the trained networks, one per seed, by variant."""
    found = defaultdict(list)
    for file in sorted(folder.glob(f"*/seed*/{NETWORK}")):
        found[file.parts[-3]].append(file)
    if REFERENCE not in found:
        raise SystemExit(f"{folder} holds no {REFERENCE}/seed*/{NETWORK}; give a study's --out")
    return dict(found)


def measured(file: Path, data: StudyData, known: int) -> dict[str, list[float]]:
    """Mean IoU of every video behind the first ``known``, with both cameras and by RGB."""
    parameters = from_checkpoint(file, "cpu")
    sets = {"target": list(data.target())[known:], "rgb": list(data.rgb())[known:]}
    return {name: list(tracked_ious(parameters, videos).values()) for name, videos in sets.items()}


def measure_all(folder: Path, modality: str, base: Path, videos: int) -> dict[str, list]:
    """``measured`` of the base tracker and of every network, by variant."""
    trained = networks(folder / modality)
    origin = json.loads((trained[REFERENCE][0].parent / ORIGIN).read_text())
    if origin["base_sha256"] != weights_sha256(load_network(base)):
        raise SystemExit(f"{folder} began from another tracker than {base}; name its own by --base")
    files = {"rgb": [base]} | trained
    known = BUDGETS["small"].test_sequences
    with tempfile.TemporaryDirectory() as made:
        data = StudyData(Path(made), modality)
        data.write_tests(known + videos, BUDGETS["small"].test_length)
        return {
            variant: [measured(file, data, known) for file in tqdm(own, variant, disable=None)]
            for variant, own in files.items()
        }


def cell(variant: str, values: np.ndarray, reference: np.ndarray) -> str:
    """A cell of the table; both (seeds, videos) in per cent, one seed where nothing is drawn."""
    text = f"{values.mean():.1f}"
    if variant != REFERENCE:
        differences = values - reference
        videos, seeds = estimate(differences.mean(0)), estimate(differences.mean(1))
        above = int((differences.mean(0) > 0).sum())
        text += f" ({videos.mean:+.1f} ± {videos.half:.1f} or {seeds.half:.1f}; {above})"
    return text


def main() -> None:
    """Tracks and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--base", type=Path, default=BUNDLED, help="the study's RGB tracker")
    parser.add_argument("--videos", type=int, default=40)
    parser.add_argument("--modality", default="depth")
    parser.add_argument("--json", type=Path, help="where the IoU of every video is kept")
    arguments = parser.parse_args()
    if arguments.json and arguments.json.is_file():
        runs = json.loads(arguments.json.read_text())
    else:
        runs = measure_all(arguments.folder, arguments.modality, arguments.base, arguments.videos)
        if arguments.json:
            arguments.json.write_text(json.dumps(runs) + "\n")
    table = {
        variant: {name: 100 * np.array([run[name] for run in own]) for name in ("target", "rgb")}
        for variant, own in runs.items()
    }
    print("| variant | seeds | target | RGB |\n| --- | --- | --- | --- |")
    for variant, found in table.items():
        cells = [cell(variant, found[name], table[REFERENCE][name]) for name in found]
        print(f"| {variant} | {len(runs[variant])} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
