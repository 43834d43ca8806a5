"""`srft data`: looks through data sets, renders their events, generates videos."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from ltr_ext.data.events import DEFAULT_FORM, EVENT_FORMS
from ltr_ext.data.jpeg import require_decoder
from srft_plugin.errors import UserError
from srft_plugin.values import read_assignments

from .coco import CocoObjects
from .kinds import KINDS
from .synthetic import SceneOptions
from .synthetic.writing import FILES

FLAGS = {"length": "--length", "texture_seed": "--split"}  # options that have one of their own


def add_commands(subparsers) -> None:
    """Mounts ``srft data check``, ``events`` and ``generate``."""
    data = subparsers.add_parser(
        "data", help="check, index and generate data sets", description=__doc__
    )
    actions = data.add_subparsers(title="actions", metavar="ACTION", required=True)
    summary = "count, compare with the official numbers, find damaged or unpaired frames"
    check = actions.add_parser("check", help=summary, description=run_check.__doc__)
    names = sorted((*KINDS, CocoObjects.name))
    check.add_argument("name", choices=names, metavar="NAME", help="depthtrack, lasher, ..")
    check.add_argument("root", metavar="ROOT", help="folder of the data set")
    check.add_argument(
        "--split", action="append", help="part to check, may be repeated; default: all there are"
    )
    check.add_argument(
        "--samples",
        type=int,
        default=3,
        help="frames per sequence that are decoded (default 3; -1: all); of every frame the end of "
        "the file is looked at",
    )
    check.add_argument(
        "--fix-index",
        action="store_true",
        help="write an index: later starts read it instead of the folders, unusable frames and "
        "sequences are left out, and test frames without partner are tracked by RGB",
    )
    check.add_argument("--json", action="store_true", help="print JSON")
    check.set_defaults(run=run_check)
    summary = "render the event images that sequences lack"
    events = actions.add_parser("events", help=summary, description=run_events.__doc__)
    events.add_argument("name", choices=_event_sets(), metavar="NAME", help="visevent, coesot, ..")
    events.add_argument("root", metavar="ROOT", help="folder of the data set")
    events.add_argument("--split", default="train", help="part to render (default train)")
    events.add_argument("--form", choices=EVENT_FORMS, default=DEFAULT_FORM, help="representation")
    events.set_defaults(run=run_events)
    summary = "write generated videos in a public layout"
    generate = actions.add_parser("generate", help=summary, description=run_generate.__doc__)
    generate.add_argument("name", choices=tuple(FILES), metavar="NAME", help="depthtrack, ..")
    generate.add_argument("root", type=Path, metavar="ROOT", help="folder to write the data set to")
    generate.add_argument("--split", choices=("train", "test"), default="train", help="part")
    generate.add_argument("--sequences", type=int, default=40, help="how many (default 40)")
    generate.add_argument("--length", type=int, default=60, help="frames of each (default 60)")
    generate.add_argument("--seed", type=int, default=0, help="of the scenes (default 0)")
    generate.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="what the scenes contain, such as leave=0.5 limbs=1,3 tilt=0.25 (SceneOptions)",
    )
    generate.set_defaults(run=run_generate)


def _event_sets() -> list[str]:
    return sorted(name for name, kind in KINDS.items() if kind.layout.modality == "event")


def run_check(arguments: argparse.Namespace) -> int:
    """Check the parts that are there, and say what to do; 1 when something is wrong, else 0."""
    from .check import check_dataset, format_report
    from .check_coco import check_coco
    from .index import write_index

    require_decoder()  # without one, every image would count as damaged
    request = arguments.root, arguments.split, arguments.samples
    if arguments.name == CocoObjects.name:
        if arguments.fix_index:
            raise UserError(
                "coco needs no index: its annotation file is one; leave --fix-index out"
            )
        reports = check_coco(*request)
    else:
        reports = check_dataset(arguments.name, *request)
    if arguments.json:
        print(json.dumps([report.as_dict() for report in reports], indent=2))
    else:
        print(format_report(reports))
    for report in reports if arguments.fix_index else ():
        path, kept = write_index(arguments.root, report)
        print(f"{path}: index of {kept} sequences ({report.split})", file=sys.stderr)
    return int(any(report.findings for report in reports))


def run_events(arguments: argparse.Namespace) -> int:
    """Render event images from the streams; 1 when a sequence could not be rendered, else 0."""
    from .event_stream import render_dataset
    from .index import index_path
    from .registry import open_dataset

    data = open_dataset(arguments.name, arguments.root, arguments.split, use_index=False)
    written, problems = render_dataset(data.entries, arguments.form)
    if written:  # an index from before would leave their sequences out
        index_path(arguments.root, arguments.name, arguments.split).unlink(missing_ok=True)
    print("\n".join([*problems, f"{written} event images written"]))
    return int(bool(problems))


def run_generate(arguments: argparse.Namespace) -> int:
    """Write one part of a generated data set, as a public one lies on disk."""
    from .generate import generate, scene_options

    changes = read_assignments(arguments.overrides, SceneOptions)
    for name, flag in FLAGS.items():
        if name in changes:
            raise UserError(f"{name}={changes[name]}: expected {flag} instead, which decides it")
    folder = generate(
        arguments.name,
        arguments.root,
        arguments.split,
        arguments.sequences,
        arguments.length,
        arguments.seed,
        dataclasses.replace(scene_options(arguments.name), **changes),
    )
    print(f"{arguments.sequences} sequences: {folder}")
    return 0
