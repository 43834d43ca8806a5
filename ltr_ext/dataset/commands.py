"""``srft data``: looks through a data set and says what to do about what is wrong with it."""

from __future__ import annotations

import argparse

from ltr_ext.data.events import EVENT_FORMS

from .kinds import KINDS


def add_commands(subparsers) -> None:
    """Mounts ``srft data check`` and ``srft data events``."""
    data = subparsers.add_parser("data", help="check and index data sets", description=__doc__)
    actions = data.add_subparsers(title="actions", metavar="ACTION", required=True)
    check = actions.add_parser(
        "check", help="count, compare with the official numbers, find damaged or unpaired frames"
    )
    check.add_argument("name", choices=sorted(KINDS), metavar="NAME", help="depthtrack, lasher, ..")
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
        help="write an index: later starts read it instead of the folders, and frames without "
        "partner and unusable sequences are left out",
    )
    check.set_defaults(run=run_check)
    events = actions.add_parser("events", help="render the event images that sequences lack")
    events.add_argument("name", choices=_event_sets(), metavar="NAME", help="visevent, coesot, ..")
    events.add_argument("root", metavar="ROOT", help="folder of the data set")
    events.add_argument("--split", default="train", help="part to render (default train)")
    events.add_argument(
        "--form", choices=EVENT_FORMS, default="colour_polarity", help="representation"
    )
    events.set_defaults(run=run_events)


def _event_sets() -> list[str]:
    return sorted(name for name, kind in KINDS.items() if kind.layout.modality == "event")


def run_check(arguments: argparse.Namespace) -> int:
    """Checks the parts that are there; 1 when something is wrong, else 0."""
    from .check import check_dataset, format_report
    from .index import write_index

    reports = check_dataset(arguments.name, arguments.root, arguments.split, arguments.samples)
    print(format_report(reports))
    if arguments.fix_index:
        for report in reports:
            path, kept = write_index(arguments.root, report)
            print(f"{path}: index of {kept} sequences ({report.split})")
    return int(any(report.findings for report in reports))


def run_events(arguments: argparse.Namespace) -> int:
    """Renders event images from the streams; 1 when a sequence could not be rendered, else 0."""
    from .event_stream import render_dataset
    from .registry import open_dataset

    data = open_dataset(arguments.name, arguments.root, arguments.split, use_index=False)
    written, problems = render_dataset(data.entries, arguments.form)
    print("\n".join([*problems, f"{written} event images written"]))
    return int(bool(problems))
