"""`srft vot`: DepthTrack, CDTB and VOT-RGBD2022 by the official toolkit."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from pytracking_ext.commands import add_format, positive

from .workspace import BENCHMARKS

if TYPE_CHECKING:
    from pytracking_ext.analysis.tables import Table

    from .score import Score
    from .workspace import Workspace


def add_commands(subparsers) -> None:
    """Mounts `srft vot` and its sub-commands."""
    vot = subparsers.add_parser(
        "vot", help="official RGB-D evaluation by the VOT toolkit", description=__doc__
    )
    commands = vot.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Callable[[argparse.Namespace], int], summary: str):
        parser = commands.add_parser(name, help=summary, description=run.__doc__)
        parser.add_argument("directory", type=Path, metavar="DIR", help="the workspace")
        parser.set_defaults(run=run)
        return parser

    init = add("init", _init, "make a workspace, or add a tracker to it")
    init.add_argument(
        "--benchmark", choices=BENCHMARKS, default="depthtrack", help="default: depthtrack"
    )
    init.add_argument("--sequences", type=Path, required=True, help="folder of the data set")
    init.add_argument("--tracker", required=True, metavar="PARAM", help="parameters or config name")
    init.add_argument("--checkpoint", type=Path, help="weights, .safetensors or .pth.tar")
    init.add_argument("--device", default="cpu", help="such as cuda:0 (default cpu)")
    init.add_argument("--precision", help="run the engine in this number format, such as bfloat16")
    init.add_argument("--name", help="of the tracker in results and reports; default: PARAM")
    init.add_argument(
        "--timeout", type=positive, default=120, help="seconds for a frame (default 120)"
    )
    init.add_argument("--path", action="append", default=[], help="folder for the module path")

    evaluate = add("evaluate", _evaluate, "track what has no result yet")
    _add_trackers(evaluate)
    evaluate.add_argument(
        "--jobs", type=positive, default=1, help="processes that share the sequences (default 1)"
    )
    evaluate.add_argument("--shard", default="1/1", metavar="i/n", help="i-th part")
    evaluate.add_argument(
        "--gpus", default="", metavar="0,1", help="GPUs given to the jobs in turn"
    )
    evaluate.add_argument("--force", action="store_true", help="discard existing results")
    evaluate.add_argument(
        "--in-process", action="store_true", help="without TraX, several runs in each network call"
    )
    evaluate.add_argument(
        "--batch", type=positive, default=8, help="runs in a call, with --in-process (default 8)"
    )
    evaluate.add_argument(
        "--adopt", action="store_true", help="keep results of a plain `vot evaluate`"
    )

    score = add("score", _score, "figures, in all and per sequence, checked against the toolkit's")
    _add_trackers(score)
    add_format(score)

    report = add("report", _report, "the figures and curves as one HTML page")
    _add_trackers(report)
    report.add_argument("--out", type=Path, help="folder for report.html; default: DIR/reports")

    doctor = add("doctor", _doctor, "look for what makes an evaluation fail or mislead")
    doctor.add_argument("--json", action="store_true", help="print JSON")


def _add_trackers(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trackers", nargs="*", metavar="TRACKER", help="names; default: all")


def _init(arguments: argparse.Namespace) -> int:
    """Write a workspace that `vot evaluate`, `vot analysis`, `vot report` and `vot pack` accept.

    The data set is linked, never changed. Run again with another --name to add a tracker.
    """
    from .workspace import create_workspace

    workspace = create_workspace(
        arguments.directory,
        arguments.sequences,
        arguments.tracker,
        checkpoint=arguments.checkpoint,
        benchmark=arguments.benchmark,
        device=arguments.device,
        name=arguments.name,
        timeout=arguments.timeout,
        paths=arguments.path,
        precision=arguments.precision,
    )
    for warning in workspace.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(
        f"{workspace.directory}: {len(workspace.sequences)} sequences, "
        f"trackers {', '.join(workspace.trackers)}\n"
        f"next: srft vot evaluate {arguments.directory}"
    )
    return 0


def _evaluate(arguments: argparse.Namespace) -> int:
    """Run the benchmark's experiment; the same command again goes on where it stopped."""
    from pytracking_ext.evaluation.datasets import Shard

    from .runner import evaluate, part_of
    from .tasks import Outcome
    from .workspace import open_workspace

    shard = Shard.parse(arguments.shard)
    workspace = open_workspace(arguments.directory)
    total = len(arguments.trackers or workspace.trackers) * len(part_of(workspace, shard))
    begin, done, frames, rgb_only = time.perf_counter(), 0, 0, 0

    def progress(outcome: Outcome) -> None:
        nonlocal done, frames, rgb_only
        done, frames = done + 1, frames + outcome.frames
        rgb_only += outcome.rgb_only
        elapsed = time.perf_counter() - begin
        state = outcome.error or (
            f"{outcome.frames} frames, {outcome.frames / outcome.seconds:.0f}/s"
            if outcome.frames
            else "done before"
        )
        if outcome.rgb_only:
            state += f", {outcome.rgb_only} without depth"
        left = tqdm.format_interval(elapsed / done * (total - done))
        line = f"[{done}/{total}, {left} left] {outcome.tracker} {outcome.sequence}: {state}"
        print(line, flush=True)

    evaluate(
        workspace,
        arguments.trackers or None,
        jobs=arguments.jobs,
        shard=shard,
        gpus=[gpu for gpu in arguments.gpus.split(",") if gpu],
        force=arguments.force,
        adopt=arguments.adopt,
        in_process=arguments.in_process,
        batch=arguments.batch,
        progress=progress,
    )
    print(f"{done} sequences, {frames} frames in {time.perf_counter() - begin:.1f} s")
    if rgb_only:
        print(f"warning: {rgb_only} frames had no readable depth image and were tracked by RGB")
    print(f"next: srft vot score {arguments.directory}")
    return 0


def _score(arguments: argparse.Namespace) -> int:
    """Print Pr/Re/F or EAO/A/R with the paper's rows, and check them against the toolkit's."""
    from pytracking_ext.analysis.tables import render_all

    from .report import sequence_tables

    workspace, scores, table, warnings = _scored(arguments)
    print(render_all([table, *sequence_tables(workspace, scores)], arguments.format))
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    return 0


def _report(arguments: argparse.Namespace) -> int:
    """Draw Pr/Re/F or EAO/A/R, their curves and the figures per sequence; checked as by score."""
    from .report import write_report

    workspace, scores, table, warnings = _scored(arguments)
    out = arguments.out or workspace.directory / "reports"
    print(f"report: {write_report(out, workspace, scores, table, warnings)}")
    return 0


def _scored(arguments: argparse.Namespace) -> tuple[Workspace, dict[str, Score], Table, list[str]]:
    """Workspace, scores by tracker, the table of their figures, and what misleads in them."""
    from .doctor import diagnose
    from .report import check_against_toolkit, figures_table
    from .runner import chosen
    from .score import score
    from .workspace import open_workspace

    workspace = open_workspace(arguments.directory)
    names = chosen(workspace, arguments.trackers or None)
    scores = {name: score(workspace, name) for name in names}
    table = figures_table(workspace, scores)
    difference = check_against_toolkit(workspace, scores)
    table.notes.append(f"The toolkit's own analysis agrees; largest difference {difference:.1g}.")
    warnings = [f"{name}: {text}" for name, found in scores.items() for text in found.warnings]
    return workspace, scores, table, warnings + diagnose(workspace.directory)


def _doctor(arguments: argparse.Namespace) -> int:
    """Check installation, workspace, data and results; 1 if something needs a remedy."""
    from .doctor import diagnose

    findings = diagnose(arguments.directory)
    if arguments.json:
        print(json.dumps(findings, indent=2))
        return 1 if findings else 0
    for finding in findings:
        print(finding)
    if not findings:
        print(f"{arguments.directory}: nothing to complain about")
    return 1 if findings else 0
