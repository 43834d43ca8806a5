"""What the paper's recipes cost on 1, 8 and 64 GPUs, by a model that two processes here check.

    python benchmarks/scaling.py [--machine 3090ti] [--recompute] [--price 2.0] [--help]
    python benchmarks/scaling.py --check

The model, and what it assumes, is in scaling_model.py, the check in scaling_check.py, what to make
of the figures in docs/cost.md. Every assumption is an option.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict, fields, replace

from scaling_check import check  # beside this file
from scaling_model import FRAMES, MACHINES, MODALITIES, Machine, Work, count, step

from ltr_ext.recipe import Recipe, load_recipe
from srft_plugin.errors import report_errors

BASES = ("ostrack256", "droptrack384", "sutrack384")


def recipe_table(works: dict[str, Work], machine: Machine, budget: Recipe, counts: list[int]):
    """Parts of a step (ms), hours and dollars of every recipe, and what all nine take."""
    print(
        "| network | GPUs | parts | compute | launches | exchange, not hidden | data | slowest "
        "| hours | dollars |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    sums = dict.fromkeys(counts, 0.0)
    for base, work in works.items():
        for gpus in counts:
            steps = [step(work, machine, gpus, budget.batch_size, which) for which in MODALITIES]
            hours = [budget.total_steps * s.seconds / 3600 for s in steps]
            sums[gpus] += sum(hours)
            first = steps[0]
            reduce = f"{first.exchange * 1e3:.1f}, {first.exposed * 1e3:.1f}"
            print(
                f"| {base} | {gpus} | {first.parts} | {first.compute * 1e3:.1f} "
                f"| {first.host * 1e3:.1f} | {reduce if gpus > 1 else '-'} "
                f"| {', '.join(f'{s.data * 1e3:.0f}' for s in steps)} "
                f"| {', '.join(dict.fromkeys(s.limit for s in steps))} "
                f"| {', '.join(f'{h:.2f}' for h in hours)} "
                f"| {sum(hours) * gpus * machine.price:.0f} |"
            )
    samples = 2.2 * budget.prior_samples  # forward and backward passes of the exact Fisher
    rate = machine.peak * machine.utilisation
    prior = sum(len(MODALITIES) * samples * work.flops / rate for work in works.values()) / 3600
    frames = len(works) * sum(FRAMES.values()) / machine.speed / 3600
    print("\n| GPUs | trainings | priors | evaluation | dollars in all |\n|---|---|---|---|---|")
    for gpus, hours in sums.items():
        total = (hours + prior + frames / gpus) * gpus * machine.price
        print(f"| {gpus} | {hours:.1f} h | {prior:.3f} h | {frames / gpus:.1f} h | {total:.0f} |")


def sharding_table(works: dict[str, Work], machine: Machine, batch: int, counts: list[int]):
    """DDP, FSDP: memory and bytes sent per GPU (GB), and the step (ms) if data never wait."""
    print(
        "\n| network | GPUs | state | activations | sent | parts | step |\n"
        "|---|---|---|---|---|---|---|"
    )
    for base, work in works.items():
        for gpus in (n for n in counts if n > 1):
            ways = [step(work, machine, gpus, batch, fsdp=fsdp) for fsdp in (False, True)]
            states = work.state() / 1e9, work.state(gpus) / 1e9
            activations = batch / gpus * work.activations / 1e9
            print(
                f"| {base} | {gpus} | {states[0]:.2f}, {states[1]:.2f} | {activations:.1f} "
                f"| {', '.join(f'{s.moved / 1e9:.2f}' for s in ways)} "
                f"| {', '.join(str(s.parts) for s in ways)} "
                f"| {', '.join(f'{replace(s, data=0).seconds * 1e3:.0f}' for s in ways)} |"
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only check the model, here")
    parser.add_argument("--machine", choices=MACHINES, default="h100")
    parser.add_argument("--bases", nargs="+", default=BASES, help="of the recipes <base>_depth")
    parser.add_argument("--gpus", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--recompute", action="store_true", help="checkpoint_activations=true")
    for entry in fields(Machine):
        name = "--" + entry.name.replace("_", "-")
        parser.add_argument(name, type=float, help=entry.metadata["help"])
    arguments = parser.parse_args()
    if arguments.check:
        return check()
    given = {entry.name: getattr(arguments, entry.name) for entry in fields(Machine)}
    changes = {name: value for name, value in given.items() if value is not None}
    machine = replace(MACHINES[arguments.machine], **changes)
    print(", ".join(f"{name} {value:g}" for name, value in asdict(machine).items()))
    recipes = {
        base: replace(load_recipe(f"{base}_depth"), checkpoint_activations=arguments.recompute)
        for base in arguments.bases
    }
    works = {base: count(recipe) for base, recipe in recipes.items()}
    print("\n| network | GFLOPs | activations (GB) | kernels | tensors | trained (M) |")
    print("|---|---|---|---|---|---|")
    for base, work in works.items():
        print(
            f"| {base} | {work.flops / 1e9:.0f} | {work.activations / 1e9:.2f} | {work.kernels} "
            f"| {work.tensors} | {work.trained / 1e6:.1f} of {work.total / 1e6:.1f} |"
        )
    budget = recipes[arguments.bases[0]]
    print()
    recipe_table(works, machine, budget, arguments.gpus)
    sharding_table(works, machine, budget.batch_size, arguments.gpus)


if __name__ == "__main__":
    sys.exit(report_errors(main))
