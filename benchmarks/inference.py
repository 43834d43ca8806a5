"""Latency of the inference engine against the network as it is, as ratios measured in one run.

    python benchmarks/inference.py [--network two_branch_tiny] [--threads 2] [--device cpu]
    python benchmarks/inference.py --table [network ...]
    python benchmarks/inference.py --startup

The first form times the network alone, the tracker without decoding, and the evaluation from files
to boxes, for the eager float32 network and for the engine in each precision, in alternating
repeats; and the floor: weights read once at the measured bandwidth, products at the measured rate.
The second prints a row per network, on a CPU each measured in a process of its own. The third times
processes from their start to the first box of the default tracker, on a GPU in its engine.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ltr_ext.dataset.registry import open_dataset
from ltr_ext.dataset.sequence import Sequence
from ltr_ext.models.flops import count_flops
from ltr_ext.models.network import TrackingNetwork
from ltr_ext.models.registry import build_network, network_names
from pytracking_ext.engine import Engine
from pytracking_ext.engine.frame import FramePath
from pytracking_ext.evaluation.running import track_dataset
from pytracking_ext.parameter.srft import TrackerParameters
from pytracking_ext.tracker.srft import SRFTTracker

ENGINES = {
    "cpu": ("float32", "bfloat16", "int8"),
    "cuda": ("float32", "bfloat16", "float16"),
}
clock = time.perf_counter  # --processor-time: time.process_time
FIRST_BOX = """
import sys
import numpy as np
from pytracking_ext.parameter.srft import load
from pytracking_ext.tracker.srft import SRFTTracker
precision = "bfloat16" if sys.argv[1].startswith("cuda") else None
tracker = SRFTTracker(load("default_rgb", device=sys.argv[1], precision=precision))
image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), np.uint8)
tracker.initialize(image, {"init_bbox": (100, 80, 40, 40)})
print(tracker.track(image)["target_bbox"])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", default="two_branch_tiny")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument(
        "--processor-time", action="store_true", help="for --threads 1 on a machine others use"
    )
    parser.add_argument("--compile", action="store_true", help="also the engine with torch.compile")
    parser.add_argument("--table", nargs="*", metavar="NETWORK", help="one row per network")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--startup", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.processor_time:
        global clock
        clock = time.process_time
    if arguments.startup:
        print_startup(arguments.device)
    elif arguments.row:
        print(row(arguments.row, arguments.device, arguments.repeats))
    elif arguments.table is not None:
        print_table(arguments)
    else:
        compare(arguments)


def compare(arguments: argparse.Namespace) -> None:
    """Prints the eager network against the engine, at each of three places."""
    eager = random_network(arguments.network).to(arguments.device)
    device = torch.device(arguments.device)
    engines = {f"engine {name}": {"precision": name} for name in ENGINES[device.type]}
    if arguments.compile:
        engines |= {
            f"engine {name}, compiled": {"precision": name, "compile": True}
            for name in ("float32", "bfloat16")
        }
    runners: dict[str, TrackingNetwork | Engine] = {"eager float32": eager}
    runners |= {name: Engine(eager, **options) for name, options in engines.items()}
    inputs = example_inputs(eager, device)
    print("| what | runner | least ms | median ms | p99 ms | per second | ratio |")
    print("|---|---|---|---|---|---|---|")
    alone = {name: lambda run=run: run(*inputs) for name, run in runners.items()}
    least = report("network alone", alone, arguments.repeats, device)
    with tempfile.TemporaryDirectory() as folder:
        sequence = written_sequence(Path(folder))
        parameters = {
            name: TrackerParameters(
                run, Path("random weights"), arguments.device,
                precision=engines.get(name, {}).get("precision"),
            )
            for name, run in runners.items()
        }  # fmt: skip
        trackers = {}
        for name in runners:
            trackers[name] = _tracker_step(parameters[name], sequence)
        if device.type == "cuda":
            trackers |= {
                f"{name}, all on the device": _device_step(Engine(eager, **options), sequence)
                for name, options in engines.items()
            }
        report("tracker", trackers, arguments.repeats, device)
        out = Path(folder) / "results"
        whole = {
            name: _whole_run(own, sequence, out / name.replace(" ", "_"))
            for name, own in parameters.items()
        }
        report("from files, per sequence", whole, 3, device, frames=len(sequence))
    floors: dict[torch.dtype, float] = {}
    for name, seconds in least.items():
        dtype = getattr(runners[name], "dtype", torch.float32)
        dtype = dtype if dtype.is_floating_point else torch.float32  # int8's is that, too
        if dtype not in floors:
            floors[dtype] = floor_seconds(eager, device, dtype)
        floor = floors[dtype]
        print(f"{name}: {seconds / floor:.2f} x its floor of {1e3 * floor:.2f} ms")


def report(
    what: str,
    functions: dict[str, Callable[[], object]],
    repeats: int,
    device: torch.device,
    frames: int = 1,
) -> dict[str, float]:
    """Times functions in turn, prints a row for each, and answers their least seconds.

    Ratios are of the least times, which other processes on the machine disturb least.
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for turn in range(repeats + 3):  # the first three warm up
        for name, function in functions.items():
            seconds = timed(function, device)
            if turn >= min(3, repeats):
                times[name].append(seconds / frames)
    least = {name: min(values) for name, values in times.items()}
    first = next(iter(least.values()))
    for name, values in times.items():
        median, p99 = statistics.median(values), float(np.quantile(values, 0.99))
        print(
            f"| {what} | {name} | {1e3 * least[name]:.2f} | {1e3 * median:.2f} | {1e3 * p99:.2f} "
            f"| {1 / median:.1f} | {first / least[name]:.2f} |",
            flush=True,
        )
    return least


@torch.inference_mode()
def timed(function: Callable[[], object], device: torch.device) -> float:
    """Seconds of a call, the device's work included."""
    began = clock()
    function()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return clock() - began


def _tracker_step(parameters: TrackerParameters, sequence: Sequence) -> Callable[[], object]:
    """A step of a tracker on frames in memory."""
    frames = [(sequence.frames.rgb(i), sequence.frames.aux(i)) for i in range(len(sequence))]
    tracker = SRFTTracker(parameters)
    tracker.initialize(frames[0][0], {"aux": frames[0][1], "init_bbox": sequence.boxes[0]})
    state = {"frame": 0}

    def step() -> None:
        state["frame"] = state["frame"] % (len(frames) - 1) + 1
        tracker.box = tuple(sequence.boxes[state["frame"] - 1])  # random weights lose the target
        image, aux = frames[state["frame"]]
        tracker.track(image, {"aux": aux})

    return step


def _device_step(engine: Engine, sequence: Sequence) -> Callable[[], object]:
    """The same on the device; the host waits for each box."""
    path = FramePath(engine)
    images = [
        np.concatenate((sequence.frames.rgb(i), sequence.frames.aux(i)), 2)
        for i in range(len(sequence))
    ]
    channels = engine.spec.in_channels
    frames = [torch.from_numpy(image[..., :channels].copy()).pin_memory() for image in images]
    path.start(frames[0], sequence.boxes[0])
    turn = itertools.cycle(frames)
    return lambda: path.step(next(turn)).cpu()


def _whole_run(
    parameters: TrackerParameters, sequence: Sequence, out: Path
) -> Callable[[], object]:
    """The evaluation of one sequence from its files."""

    def whole() -> None:
        out.mkdir(parents=True, exist_ok=True)
        for file in out.iterdir():
            file.unlink()
        failures = track_dataset([sequence], parameters, out, 1, 2, progress=False)
        assert not failures, failures

    return whole


def written_sequence(root: Path, frames: int = 20) -> Sequence:
    """An RGB-D sequence, 640x480, in files."""
    from evaluation import write_sequences  # the benchmark beside this one

    write_sequences(root, 1, frames)
    return open_dataset("depthtrack", root, "test")[0]


def print_table(arguments: argparse.Namespace) -> None:
    """A row per network."""
    names = ("eager", *ENGINES[torch.device(arguments.device).type])
    timed_ones = "".join(f"| {name}: median, p99 ms | frames/s " for name in names)
    print(f"| network | values (M) | GFLOPs {timed_ones}| ratios | peak memory (MB) |")
    print("|---" * (5 + 2 * len(names)) + "|")
    for name in arguments.table or network_names():
        if arguments.device.startswith("cuda"):
            print(row(name, arguments.device, arguments.repeats), flush=True)
            continue
        command = [sys.executable, __file__, "--row", name, "--device", arguments.device,
                   "--threads", str(arguments.threads), "--repeats",
                   str(arguments.repeats)]  # fmt: skip
        command += ["--processor-time"] * arguments.processor_time
        subprocess.run(command, check=True)


def row(name: str, device: str, repeats: int) -> str:
    """The row of one network; the memory is that of the eager network."""
    network = random_network(name).to(device)
    inputs = example_inputs(network, torch.device(device))
    gflops = count_flops(network, inputs)[0] / 1e9
    if device.startswith("cuda"):
        gc.collect()  # the engines of the row before
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)
    with torch.inference_mode():
        network(*inputs)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device.startswith("cuda"):
        peak = torch.cuda.max_memory_allocated(device) / 2**20
    precisions = ENGINES[torch.device(device).type]
    runners = (network, *(Engine(network, precision) for precision in precisions))
    cells, least = [], []
    times: list[list[float]] = [[] for _ in runners]
    for turn in range(repeats + 1):
        for values, run in zip(times, runners, strict=True):
            seconds = timed(lambda run=run: run(*inputs), torch.device(device))
            if turn:
                values.append(seconds)
    for values in times:
        least.append(min(values))
        median, p99 = statistics.median(values), np.quantile(values, 0.99)
        cells.append(f"{1e3 * median:.1f}, {1e3 * p99:.1f} | {1 / median:.1f}")
    values = sum(value.numel() for value in network.parameters()) / 1e6
    ratios = ", ".join(f"{least[0] / seconds:.2f}" for seconds in least[1:])
    return f"| {name} | {values:.1f} | {gflops:.1f} | {' | '.join(cells)} | {ratios} | {peak:.0f} |"


def random_network(name: str) -> TrackingNetwork:
    """A network whose weights are noise, made without the usual slow initialisation."""
    torch.manual_seed(0)
    with torch.device("meta"):
        network = build_network(name)
    state = {}
    for key, value in network.state_dict().items():
        state[key] = torch.ones(value.shape, dtype=value.dtype)
        if value.is_floating_point() and not key.endswith("running_var"):
            state[key].normal_(std=0.02)
    network.load_state_dict(state, assign=True)
    return network.requires_grad_(False).eval()


def example_inputs(network: TrackingNetwork, device: torch.device) -> list[Tensor]:
    """A frame of noise."""
    spec = network.spec
    sizes = {"template": spec.template_size, "search": spec.search_size}
    made = {
        name: torch.randn(1, spec.in_channels, size, size, device=device)
        for name, size in sizes.items()
    }
    made["template_box"] = torch.tensor([[0.5, 0.5, 0.5, 0.5]], device=device)
    made["modality"] = torch.ones(1, dtype=torch.long, device=device)
    return [made[name] for name in network.input_names]


@torch.inference_mode()
def floor_seconds(network: TrackingNetwork, device: torch.device, dtype: torch.dtype) -> float:
    """Weights read once at the measured bandwidth, products at the measured rate."""
    flops, _ = count_flops(network, example_inputs(network, device))
    side, elements = (8192, 1 << 30) if device.type == "cuda" else (1024, 1 << 25)
    square = torch.randn(side, side, device=device).to(dtype)
    product = min(timed(lambda: square @ square, device) for _ in range(10))
    block = torch.empty(elements, device=device).normal_()
    reading = min(timed(block.sum, device) for _ in range(10))
    size = sum(value.numel() for value in network.parameters()) * dtype.itemsize
    rate, bandwidth = 2 * side**3 / product, block.nbytes / reading
    return flops / rate + size / bandwidth


def print_startup(device: str, repeats: int = 5) -> None:
    """Seconds, and processor seconds, from the start of a process to the first box."""
    rows = []
    for code in ("import torch", FIRST_BOX):
        for _ in range(repeats):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            began = time.perf_counter()
            command = [sys.executable, "-c", code, device]
            subprocess.run(command, check=True, capture_output=True)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            rows.append((code == FIRST_BOX, time.perf_counter() - began, used))
    for first_box, what in ((False, "import torch"), (True, "first box of the default tracker")):
        chosen = [row[1:] for row in rows if row[0] == first_box]
        wall, used = (min(values) for values in zip(*chosen, strict=True))
        print(f"{what}: {wall:.2f} s, {used:.2f} s of processor time (best of {repeats})")


if __name__ == "__main__":
    main()
