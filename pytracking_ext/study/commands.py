"""`srft study`: runs the comparison and writes its tables."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from ltr_ext.admin.environment import device_name
from pytracking_ext.commands import positive
from srft_plugin.errors import UserError

from .plan import BUDGETS, QUESTIONS, Budget, Cell, cells


def add_commands(subparsers) -> None:
    """Mounts `srft study run`, `srft study cost` and `srft study report`."""
    study = subparsers.add_parser(
        "study", help="compare ways to fine-tune, with seeds and controls", description=__doc__
    )
    actions = study.add_subparsers(title="actions", metavar="ACTION", required=True)
    run = actions.add_parser("run", help="run or resume it", description=run_command.__doc__)
    cost = actions.add_parser(
        "cost", help="measure what each variant costs", description=cost_command.__doc__
    )
    report = actions.add_parser(
        "report", help="tables of what is finished", description=report_command.__doc__
    )
    for parser, command in ((run, run_command), (cost, cost_command), (report, report_command)):
        parser.add_argument(
            "--budget", choices=BUDGETS, default="small", help="data, steps and seeds"
        )
        parser.add_argument("--out", type=Path, default=Path("srft-study"), help="folder of it all")
        parser.add_argument(
            "--question", action="append", choices=QUESTIONS, help="may be repeated; default: all"
        )
        parser.add_argument(
            "--modality",
            action="append",
            choices=BUDGETS["full"].modalities,
            help="may be repeated; default: those of the budget",
        )
        parser.add_argument(
            "--base", help="RGB tracker that all start from; default: the bundled one"
        )
        parser.set_defaults(run=command)
    run.add_argument(
        "--device", type=device_name, action="append", help="may be repeated; default: cpu"
    )
    cost.add_argument("--device", type=device_name, default="cpu")
    run.add_argument("--jobs", type=positive, default=1, help="trainings that run at the same time")
    run.add_argument(
        "--shard", default="1/1", metavar="i/n", help="this machine's part of the trainings"
    )


def run_command(arguments: argparse.Namespace) -> int:
    """Train and measure every variant with every seed, then write study.md and its figures. What a
    stopped run has finished is kept. Machines that share the folder take a --shard each."""
    from pytracking_ext.evaluation.datasets import Shard

    from .runner import run_study
    from .statistics import require_scipy

    budget, shard = _budget(arguments), Shard.parse(arguments.shard)
    require_scipy()  # for the tables, hours later
    part = _plan(arguments)[shard.index - 1 :: shard.count]
    run_study(part, budget, arguments.out, arguments.device or ["cpu"], arguments.jobs)
    return report_command(arguments)


def cost_command(arguments: argparse.Namespace) -> int:
    """Measure how long a step of each variant takes, that of full fine-tuning = 1; study.md has a
    table of it."""
    from .cost import FILE, write_costs

    write_costs(_plan(arguments), _budget(arguments), arguments.out, arguments.device)
    print(f"study: {arguments.out / FILE}")
    return 0


def report_command(arguments: argparse.Namespace) -> int:
    """Write study.md and its figures from what is finished, by this machine or others."""
    from .report import write_report
    from .runner import finished

    plan = _plan(arguments)
    results = finished(plan, _budget(arguments), arguments.out)
    file = write_report(results, _questions(arguments), arguments.out)
    print(f"study: {file} ({len(results)} of {len(plan)} trainings)")
    return 0


def _plan(arguments: argparse.Namespace) -> list[Cell]:
    """What is to be run; raises UserError where the questions concern none of the modalities."""
    plan = list(cells(_budget(arguments), _questions(arguments)))
    if not plan:
        raise UserError(
            f"{', '.join(_questions(arguments))}: not asked of "
            f"{', '.join(_budget(arguments).modalities)}; name another --modality"
        )
    return plan


def _questions(arguments: argparse.Namespace) -> tuple[str, ...]:
    return tuple(arguments.question or QUESTIONS)


def _budget(arguments: argparse.Namespace) -> Budget:
    from ltr_ext.run_training import base_file

    budget = BUDGETS[arguments.budget]
    given = () if arguments.base is None else (f"base={base_file(arguments.base)}",)
    return replace(
        budget,
        modalities=tuple(arguments.modality or budget.modalities),
        settings=(*budget.settings, *given),
    )
