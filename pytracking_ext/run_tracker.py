"""Tracks a data set and scores it: `python -m pytracking_ext.run_tracker srft <param>`.

The command of pytracking's ``run_tracker.py``, without pytracking; `srft evaluate <param>` is the
same. A second call goes on where the first one stopped.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from ltr_ext.admin.environment import default_device, environment
from ltr_ext.dataset.sequence import Sequence
from ltr_ext.models.flops import count_flops
from pytracking_ext.analysis.conventions import convention
from pytracking_ext.analysis.tables import render_all
from pytracking_ext.commands import add_evaluation_arguments
from pytracking_ext.evaluation.datasets import Shard, open_test_set, part, read_sequences
from pytracking_ext.evaluation.results import box_file, open_results
from pytracking_ext.evaluation.running import track_dataset
from pytracking_ext.evaluation.scores import score_folder, sequence_tables, total_table
from pytracking_ext.parameter.srft import TrackerParameters, from_checkpoint, load
from srft_plugin.errors import report_errors


def results_directory(param: str, dataset: str, runid: int | None, root: Path | None) -> Path:
    """``<results>/srft/<param>[_<runid>]/<dataset>``."""
    run = param if runid is None else f"{param}_{runid:03d}"
    return (root or environment().results_dir) / "srft" / run / dataset


def evaluate(
    parameters: TrackerParameters, sequences: list[Sequence], directory: Path, **how: Any
) -> dict[str, str]:
    """Tracks the sequences that ``directory`` has no result of; gives the failures by name.

    ``how`` goes to :func:`pytracking_ext.evaluation.running.track_dataset`.

    Raises:
        UserError: the directory holds results of other weights or settings.
    """
    open_results(
        directory,
        parameters.checkpoint,
        parameters.settings,
        lambda: {"device": device_name(parameters.device), **network_size(parameters), **how},
    )
    return track_dataset(sequences, parameters, directory, **how)


def device_name(device: str) -> str:
    """The GPU's name, or that of the machine's processor architecture."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {torch.get_num_threads()} threads"


def network_size(parameters: TrackerParameters) -> dict[str, float]:
    """Parameters in millions and GFLOPs per frame, as in Table XII: those of linear layers and
    convolutions, a multiply-add is two."""
    network = parameters.network
    if parameters.precision:  # the engine's packed weights are no parameters, nor known operations
        network = from_checkpoint(parameters.checkpoint, parameters.device).network
    spec = network.spec
    images = [
        torch.zeros(1, spec.in_channels, size, size, device=parameters.device)
        for size in (spec.template_size, spec.search_size)
    ]
    return {
        "parameters_m": sum(value.numel() for value in network.parameters()) / 1e6,
        "gflops": count_flops(network, images)[1] / 1e9,
    }


def run(arguments: argparse.Namespace) -> int:
    """Tracks, prints the score table; 1 when a sequence failed."""
    device = arguments.device or default_device()
    parameters = load(arguments.tracker_param, arguments.checkpoint, device, arguments.precision)
    name = arguments.dataset_name
    shard = Shard.parse(arguments.shard) if arguments.shard else Shard.of_process()
    dataset = open_test_set(name, arguments.dataset_root)
    sequences, failures = read_sequences(dataset, arguments.sequence)
    directory = results_directory(arguments.tracker_param, name, arguments.runid, arguments.results)
    failures |= evaluate(
        parameters,
        part(sequences, shard),
        directory,
        batch=arguments.batch or (1 if device == "cpu" else 16),
        threads=arguments.threads,
    )
    print(f"results: {directory}", file=sys.stderr)
    for failed, message in failures.items():
        print(f"FAILED {failed}: {message}", file=sys.stderr)
    tracked = [s for s in sequences if box_file(directory, s.name).exists()]
    if tracked and all(sequence.visible.sum() == 1 < len(sequence) for sequence in tracked):
        print(f"{name} has the first boxes alone: its server scores the files", file=sys.stderr)
    elif tracked and shard.index == 1:  # one process of several is enough to print scores
        scores = {
            arguments.tracker_param: score_folder(sequences, directory, convention(name), failures)
        }
        tables = [*sequence_tables(scores), total_table(name, scores)]
        print(render_all(tables, arguments.format))
    return 1 if failures else 0


def main(argv: list[str] | None = None) -> int:
    """`python -m pytracking_ext.run_tracker srft <param> --dataset_name <name>`."""
    parser = argparse.ArgumentParser(description="Track a data set and score the result.")
    parser.add_argument("tracker_name", choices=("srft",))
    add_evaluation_arguments(parser)
    return report_errors(run, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
