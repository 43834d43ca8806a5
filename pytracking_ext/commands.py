"""Sub-commands of `srft` about tracking: track, evaluate, export, score, report."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from ltr_ext.admin.environment import device_name
from pytracking_ext.analysis.tables import FORMATS
from srft_plugin.errors import UserError, some

WEIGHTS = (".safetensors", ".pth", ".tar", ".pt")  # how files of weights end


def add_commands(subparsers) -> None:
    """Mounts the sub-commands on the `srft` parser."""
    track = subparsers.add_parser(
        "track", help="track a target through a video", description=_track.__doc__
    )
    track.add_argument("--rgb", required=True, help="video, image folder or camera number")
    track.add_argument(
        "--init",
        required=True,
        metavar="x,y,w,h",
        help="target in frame 0; where x is negative: --init=-5,80,40,60",
    )
    track.add_argument(
        "--param",
        default="default_rgb",
        help="parameter set or trained config; default: %(default)s",
    )
    add_video_options(track)
    track.set_defaults(run=_track)

    evaluate = subparsers.add_parser(
        "evaluate", help="track a data set and score the result", description=_evaluate.__doc__
    )
    add_evaluation_arguments(evaluate)
    evaluate.set_defaults(run=_evaluate)

    export = subparsers.add_parser(
        "export", help="write a tracker for another run time", description=_export.__doc__
    )
    export.add_argument("checkpoint", type=Path, help="weights, parameter set or trained config")
    export.add_argument(
        "target", type=Path, nargs="?", help="default: beside the weights; here for a name"
    )
    export.add_argument("--format", default="onnx", help="onnx, torch-export or tensorrt-ready")
    export.set_defaults(run=_export)

    score = subparsers.add_parser(
        "score", help="score result files on a benchmark", description=_score.__doc__
    )
    _add_benchmark(score)
    add_format(score)
    score.add_argument("--bootstrap", action="store_true", help="95 %% intervals, real differences")
    score.add_argument("--sequences", action="store_true", help="also one row per sequence")
    score.add_argument("--attributes", action="store_true", help="also one row per attribute")
    score.set_defaults(run=_score)

    report = subparsers.add_parser(
        "report", help="compare trackers in one HTML page", description=_report.__doc__
    )
    _add_benchmark(report)
    report.add_argument("--out", type=Path, required=True, help="folder for report.html")
    report.set_defaults(run=_report)


def positive(text: str) -> int:
    """Type of arguments that are whole numbers from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}, expected a whole number from 1 on")
    return int(text)


def add_format(parser: argparse.ArgumentParser) -> None:
    """How a command prints its tables."""
    parser.add_argument("--format", choices=FORMATS, default="text")
    parser.add_argument(
        "--json", dest="format", action="store_const", const="json", help="as --format json"
    )


def add_tracker_options(parser: argparse.ArgumentParser) -> None:
    """Options of every command that tracks: weights, device, number format."""
    parser.add_argument("--checkpoint", type=Path, help="weights other than the parameter set's")
    parser.add_argument("--device", type=device_name, help="torch device; a GPU where there is one")
    parser.add_argument(
        "--precision", help="run in the inference engine: float32, bfloat16, float16, int8"
    )


def add_evaluation_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `srft evaluate`, and of `run_tracker` after the tracker's name."""
    parser.add_argument("tracker_param", help="parameter set or trained config, such as tiny_depth")
    parser.add_argument("--dataset_name", required=True, help="for example depthtrack")
    parser.add_argument("--dataset_root", type=Path, help="its folder; see `srft env`")
    parser.add_argument("--sequence", help="name or number of a single sequence")
    parser.add_argument("--runid", type=int, help="keeps the results apart from other runs")
    parser.add_argument("--results", type=Path, help="folder for results; see `srft env`")
    add_tracker_options(parser)
    parser.add_argument(
        "--batch", type=positive, help="sequences tracked in one batch; 16 on a GPU, 1 on a CPU"
    )
    parser.add_argument(
        "--threads",
        type=positive,
        default=min(os.cpu_count() or 2, 16),
        help="threads that read images and cut search regions; %(default)s here",
    )
    parser.add_argument("--shard", metavar="i/n", help="only part i of n; torchrun sets it")
    add_format(parser)


def add_video_options(parser: argparse.ArgumentParser) -> None:
    """Options that `run_video` and `srft track` share."""
    parser.add_argument("--aux", help="auxiliary video, image folder or camera number")
    parser.add_argument("--save", type=Path, help="annotated video to write, such as out.mp4")
    parser.add_argument("--boxes", type=Path, help="text file for boxes; confidences go beside it")
    add_tracker_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def _add_benchmark(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("benchmark", help="for example depthtrack, lasher, visevent")
    parser.add_argument("root", type=Path, help="folder of the data set")
    parser.add_argument(
        "results", nargs="+", metavar="RESULTS", help="folder of result files, or label=folder"
    )
    parser.add_argument(
        "--set",
        nargs="+",
        action="extend",
        default=[],
        metavar="choice=value",
        help="scoring rules other than the benchmark's own, such as absent=skip",
    )
    parser.add_argument(
        "--attribute-files",
        type=Path,
        metavar="DIR",
        help="the benchmark's attribute labels, one file per sequence",
    )
    parser.add_argument(
        "--base", type=int, choices=(0, 1), default=0, help="pixel that results count from"
    )


def _track(arguments: argparse.Namespace) -> int:
    """Track a target through videos, image folders or cameras."""
    from pytracking_ext.run_video import parse_box, track_video

    return track_video(arguments.param, arguments.rgb, parse_box(arguments.init), arguments)


def _evaluate(arguments: argparse.Namespace) -> int:
    """Track a data set and score the result; the same command goes on where it was stopped."""
    from pytracking_ext.run_tracker import run

    return run(arguments)


def _export(arguments: argparse.Namespace) -> int:
    """Write a tracker as one file that ONNX Runtime, torch.export or TensorRT reads."""
    from pytracking_ext.export import export
    from pytracking_ext.parameter.srft import from_checkpoint, load

    source = arguments.checkpoint
    # A run may have a point in its name, and a folder that of a run.
    by_path = len(source.parts) > 1 or source.suffix in WEIGHTS or source.is_file()
    parameters = from_checkpoint(source) if by_path else load(str(source), device="cpu")
    beside = source.with_suffix("") if by_path else source
    target = arguments.target or beside
    print(f"exported: {export(parameters, target, arguments.format)}")
    return 0


def _score(arguments: argparse.Namespace) -> int:
    """Score trackers by the rules of a benchmark, the paper's rows beside them."""
    from pytracking_ext.analysis.tables import render_all
    from pytracking_ext.evaluation.scores import attribute_table, sequence_tables, total_table

    _, _, scores, failures, published = _read(arguments)
    tables = [total_table(arguments.benchmark, scores, arguments.bootstrap, published)]
    if arguments.sequences:
        tables += sequence_tables(scores)
    if arguments.attributes:
        if not any(score.attributes for score in scores.values()):
            raise UserError(
                f"{arguments.root}: no attribute labels; give the folder of the benchmark's own by "
                "--attribute-files"
            )
        tables += [attribute_table(scores, metric) for metric in next(iter(scores.values())).total]
    print(render_all(tables, arguments.format))
    return _status(scores, failures)


def _report(arguments: argparse.Namespace) -> int:
    """Compare trackers on a benchmark in one HTML page, with figures for papers beside it."""
    from pytracking_ext.evaluation.results import read_header
    from pytracking_ext.report import write_report

    sequences, predictions, scores, failures, published = _read(arguments)
    folders = labelled(arguments.results, arguments.benchmark)
    headers = {label: read_header(folder) for label, folder in folders.items()}
    page = write_report(
        arguments.out, arguments.benchmark, sequences, scores, predictions, headers, published
    )
    print(f"report: {page}")
    return _status(scores, failures)


def _status(scores: dict[str, Any], failures: dict[str, str]) -> int:
    """1 where something that the benchmark has is left out."""
    return 1 if failures or any(score.missing for score in scores.values()) else 0


def _read(
    arguments: argparse.Namespace,
) -> tuple[list, dict[str, Any], dict[str, Any], dict[str, str], bool]:
    """Sequences of the benchmark, predictions and score per label, and what cannot be opened.

    That is said, too. The last: whether the rules are the benchmark's own, whatever the metrics.
    """
    from pytracking_ext.analysis.conventions import convention
    from pytracking_ext.analysis.scoring import score_benchmark
    from pytracking_ext.evaluation.attributes import read_attributes
    from pytracking_ext.evaluation.datasets import open_test_set, read_sequences
    from pytracking_ext.evaluation.loading import read_predictions
    from pytracking_ext.evaluation.scores import ground_truths

    how = convention(arguments.benchmark, **parse_choices(arguments.set))
    sequences, failures = read_sequences(open_test_set(arguments.benchmark, arguments.root))
    if not sequences:
        raise UserError(f"no sequence can be used: {some(list(failures.values()))}")
    for name, message in failures.items():  # first: they may be why a folder has no result
        print(f"FAILED {name}: {message}", file=sys.stderr)
    names, attributes = [sequence.name for sequence in sequences], {}
    if arguments.attribute_files:
        attributes = read_attributes(arguments.attribute_files, arguments.benchmark, names)
    predictions = {}
    for label, folder in labelled(arguments.results, arguments.benchmark).items():
        predictions[label] = read_predictions(folder, names, arguments.base, failures)
        if not predictions[label]:
            raise UserError(
                f"{folder} has no result of the {len(names)} sequences in {arguments.root}; "
                f"expected a file for each, such as {names[0]}.txt"
            )
    truths = ground_truths(sequences, how, attributes, set().union(*predictions.values()))
    scores = {label: score_benchmark(truths, found, how) for label, found in predictions.items()}
    own_rules = how == replace(convention(arguments.benchmark), metrics=how.metrics)
    return sequences, predictions, scores, failures, own_rules


def labelled(results: list[str], benchmark: str) -> dict[str, Path]:
    """Folders by label: ``label=folder``, else the folder's name, or its parent's where our own
    layout ``<param>/<benchmark>`` has it there.

    Raises:
        UserError: two folders with one label.
    """
    folders: dict[str, Path] = {}
    for text in results:
        label, separator, folder = text.partition("=")
        if Path(text).is_dir():  # runs/lr=1e-4
            separator = ""
        path = Path(folder if separator else text)
        if not separator:
            name = path.resolve().name
            label = path.resolve().parent.name if name == benchmark else name
        if label in folders:
            raise UserError(f"two results are called {label!r}; give them names: name=folder")
        folders[label] = path
    return folders


def parse_choices(texts: list[str]) -> dict[str, Any]:
    """``choice=value`` words as the fields of a convention.

    Raises:
        UserError: a word without ``=``, or a value that the choice cannot have.
    """
    from pytracking_ext.analysis.conventions import parse_choice

    choices = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator:
            raise UserError(f"no choice {text!r}; expected choice=value, such as absent=skip")
        choices[name] = parse_choice(name, value)
    return choices
