"""Workspaces of the VOT toolkit that the plain ``vot`` commands accept.

W/config.yaml     registry, stack file
W/<stack>.yaml    experiments and analyses, without the toolkit's data set download
W/trackers.ini    one section per tracker
W/sequences/      list.txt and a folder of links per sequence; the user's data stay as they are
W/results/        TRACKER/EXPERIMENT/SEQUENCE/...
"""

from __future__ import annotations

import configparser
import os
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ltr_ext.admin.files import write_text
from ltr_ext.dataset.base import read_properties
from srft_plugin.errors import UserError, some, unknown

from .parameters import checked_weights
from .results import Run, is_done, runs_of
from .sequences import find_sequences, ground_truth_lines, link_sequence

PACKAGES = Path(__file__).resolve().parent.parent  # the folder that holds vot_integration
SERVER = "vot_integration.server"
NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9_-]+")  # what the toolkit takes in no tracker's name


@dataclass(frozen=True)
class Benchmark:
    """A protocol: its stack file, the name of its experiment, the figures that it reports."""

    stack: str
    experiment: str
    measures: tuple[str, ...]

    @property
    def multistart(self) -> bool:
        """Whether the tracker starts at anchors, not once per sequence."""
        return "EAO" in self.measures


LONG_TERM = Benchmark("rgbd_longterm.yaml", "rgbd-unsupervised", ("Pr", "Re", "F"))
MULTISTART = Benchmark("rgbd_multistart.yaml", "baseline", ("EAO", "A", "R"))
BENCHMARKS = {"depthtrack": LONG_TERM, "cdtb": LONG_TERM, "vot-rgbd2022": MULTISTART}


@dataclass(frozen=True)
class Workspace:
    """A workspace on disk.

    Attributes:
        directory: absolute path.
        benchmark: its protocol.
        sequences: names in the order of list.txt.
        trackers: names in trackers.ini.
        warnings: what `create_workspace` noticed in the data, one line each.
    """

    directory: Path
    benchmark: Benchmark
    sequences: tuple[str, ...]
    trackers: tuple[str, ...]
    warnings: tuple[str, ...] = field(default=(), compare=False)

    def source(self, sequence: str) -> Path:
        """Folder of a sequence's images and annotation."""
        return self.directory / "sequences" / sequence

    def results(self, tracker: str, sequence: str) -> Path:
        """Folder of a tracker's runs of a sequence."""
        return results_folder(self, tracker) / self.benchmark.experiment / sequence

    def runs(self, sequence: str) -> list[Run]:
        """The protocol's runs of a sequence."""
        return runs_of(self.source(sequence), self.benchmark.multistart)

    def runs_to_make(self, tracker: str, sequence: str, force: bool) -> list[Run]:
        """Those that are missing or damaged, or all of them."""
        folder = self.results(tracker, sequence)
        return [run for run in self.runs(sequence) if force or not is_done(folder, run)]


def create_workspace(
    directory: str | Path,
    sequences: str | Path,
    tracker_param: str,
    checkpoint: str | Path | None = None,
    benchmark: str = "depthtrack",
    device: str = "cpu",
    name: str | None = None,
    timeout: int = 120,
    paths: Sequence[str | Path] = (),
    precision: str | None = None,
) -> Workspace:
    """Creates a workspace with one tracker, or adds a tracker to the workspace of the same data.

    Args:
        directory: where the workspace goes.
        sequences: the data set, a folder of sequence folders (all of them, or those of list.txt).
        tracker_param: parameter name under ``pytracking_ext/parameter/srft``, or
            ``module:factory`` for a tracker of one's own; see `vot_integration.server`.
        checkpoint: weights for the tracker.
        benchmark: ``"depthtrack"``, ``"cdtb"`` (long-term protocol) or ``"vot-rgbd2022"``.
        device: torch device of the tracker, such as ``"cuda:0"``.
        name: the tracker's name in results and reports; default: ``tracker_param``.
        timeout: seconds that the toolkit waits for one frame before it kills the tracker.
        paths: folders put on the tracker's module path (the toolkit overwrites PYTHONPATH).
        precision: runs the network in the engine, in this number format.

    Raises:
        UserError: unusable data, unknown benchmark or parameter name, missing checkpoint, a name
            taken by another tracker, or ``directory`` holding something else.
    """
    if benchmark not in BENCHMARKS:
        raise unknown("benchmark", benchmark, BENCHMARKS)
    protocol = BENCHMARKS[benchmark]
    directory, root = Path(directory).resolve(), Path(sequences).resolve()
    name = name or NOT_IN_NAMES.sub("-", tracker_param)
    if NOT_IN_NAMES.search(name) or name == configparser.DEFAULTSECT:
        raise UserError(
            f"tracker name {name!r}: only letters, digits, - and _ are possible, and not DEFAULT"
        )
    checkpoint = checked_weights(tracker_param, checkpoint, precision)
    if checkpoint is not None and not Path(checkpoint).is_file():
        raise UserError(f"checkpoint {Path(checkpoint).resolve()} does not exist")
    folders = find_sequences(root)
    if (directory / "config.yaml").exists():
        workspace = open_workspace(directory)
        names = tuple(folder.name for folder in folders)
        if (workspace.benchmark, workspace.sequences) != (protocol, names):
            raise UserError(
                f"{directory} is a workspace of {len(workspace.sequences)} other sequences or of "
                "another benchmark; choose a new folder"
            )
        for folder in folders:
            _check_source(workspace.source(folder.name), folder)
        channel, warnings = _auxiliary(directory), ()
    else:
        channel, warnings = _write_workspace(directory, folders, protocol)
    section = _tracker_section(
        name, tracker_param, checkpoint, device, precision, channel, timeout, [PACKAGES, *paths]
    )
    _add_tracker(directory / "trackers.ini", name, section)
    return replace(open_workspace(directory), warnings=tuple(warnings))


def open_workspace(directory: str | Path) -> Workspace:
    """Reads a workspace that `create_workspace` wrote.

    Raises:
        UserError: ``directory`` is none, or files in it are missing.
    """
    directory = Path(directory).resolve()
    stack = read_config(directory).get("stack")
    benchmark = next((b for b in BENCHMARKS.values() if b.stack == stack), None)
    if benchmark is None:
        known = ", ".join(sorted({b.stack for b in BENCHMARKS.values()}))
        raise UserError(
            f"{directory / 'config.yaml'}: stack {stack!r} is not one of {known}; run "
            "`srft vot init`"
        )
    listing = directory / "sequences" / "list.txt"
    for path in (listing, directory / stack, directory / "trackers.ini"):
        if not path.is_file():
            raise UserError(f"{path} is missing; make the workspace anew with `srft vot init`")
    return Workspace(
        directory=directory,
        benchmark=benchmark,
        sequences=tuple(listing.read_text(encoding="utf-8").split("\n")[:-1]),
        trackers=tuple(_read_ini(directory / "trackers.ini").sections()),
    )


def read_config(directory: Path) -> dict[str, Any]:
    """The toolkit's settings in ``config.yaml``.

    Raises:
        UserError: ``directory`` has no such file, or it is no YAML mapping.
    """
    import yaml  # comes with timm

    path = directory / "config.yaml"
    if not path.is_file():
        raise UserError(f"{directory} is no workspace (no config.yaml); `srft vot init` makes one")
    try:
        config = yaml.safe_load(path.read_bytes())
    except yaml.YAMLError as error:
        raise UserError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise UserError(f"{path}: found {config!r:.80}, expected `registry: ...` and `stack: ...`")
    return config


def require_toolkit() -> None:
    """Raises UserError where the toolkit, an extra of the installation, is missing."""
    if find_spec("vot") is None:
        raise UserError('the VOT toolkit is not installed: pip install -e ".[vot]"')


def results_folder(workspace: Workspace, tracker: str) -> Path:
    """Where the toolkit keeps the results of a tracker."""
    return workspace.directory / "results" / tracker


def eao_range(workspace: Workspace) -> tuple[int, int]:
    """``low`` and ``high`` of the EAO score in the workspace's stack file."""
    import yaml

    file = workspace.directory / workspace.benchmark.stack
    try:
        stack = yaml.safe_load(file.read_bytes())
        analyses = stack["experiments"][workspace.benchmark.experiment]["analyses"]
        (eao,) = [entry for entry in analyses if entry["type"] == "multistart_eao_score"]
        low, high = int(eao["low"]), int(eao["high"])
        if not 0 < low < high:
            raise ValueError(f"low: {low}, high: {high}")
    except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{file}: expected one analysis multistart_eao_score with 0 < low < high ({error!r}); "
            "correct it, or make the workspace anew with `srft vot init`"
        ) from error
    return low, high


def taken_for_patterns(names: Iterable[str]) -> str | None:
    """What is wrong with those of ``names`` that the toolkit, which globs them, would not find."""
    globbed = [name for name in names if set("*?[") & set(name)]
    if not globbed:
        return None
    return f"{some(globbed)}: the toolkit takes * ? [ in names for patterns; rename what has them"


def tracker_settings(workspace: Workspace, name: str) -> dict[str, str]:
    """Section ``name`` of trackers.ini.

    Raises:
        UserError: there is no such tracker.
    """
    if name not in workspace.trackers:
        raise unknown("tracker", name, workspace.trackers)
    file = workspace.directory / "trackers.ini"
    try:
        return dict(_read_ini(file)[name])
    except configparser.InterpolationError as error:
        raise UserError(f"{file}: {error}; write %% for a % sign") from error


def tracker_environment(workspace: Workspace, name: str) -> dict[str, str]:
    """The ``SRFT_*`` variables of a tracker, as its server finds them.

    Raises:
        UserError: there is no such tracker.
    """
    settings = tracker_settings(workspace, name)
    prefix = "env_srft_"
    return {k[4:].upper(): value for k, value in settings.items() if k.startswith(prefix)}


def _write_workspace(
    directory: Path, folders: list[Path], protocol: Benchmark
) -> tuple[str, list[str]]:
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise UserError(f"{directory} exists and is no workspace; choose a new or an empty folder")
    names = [folder.name for folder in folders]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise UserError(f"list.txt names {', '.join(sorted(repeated))} more than once")
    if problem := taken_for_patterns([*names, str(directory)]):
        raise UserError(problem)
    # Built beside its place and moved there at the end: a refused data set leaves nothing behind.
    # A folder that is there may be a mount point, across which nothing can be moved.
    place = directory if directory.is_dir() else directory.parent
    place.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(".draft", f".{directory.name}-", place))
    channels, warnings = set(), []
    try:
        (draft / "results").mkdir()
        for folder in folders:
            channel, found = link_sequence(
                folder, draft / "sequences" / folder.name, protocol.multistart
            )
            channels.add(channel)
            warnings += found
        if len(channels) > 1:
            raise UserError("some sequences have depth/, others ir/; a workspace holds one kind")
        listing = "".join(folder.name + "\n" for folder in folders)
        files = {
            "sequences/list.txt": listing,
            "config.yaml": f"registry: [./trackers.ini]\nstack: {protocol.stack}\n",
            protocol.stack: (Path(__file__).parent / "stacks" / protocol.stack).read_text(),
            "trackers.ini": "",
        }
        for path, text in files.items():
            (draft / path).write_text(text, encoding="utf-8", newline="\n")
        directory.mkdir(exist_ok=True)  # one that is there may be a shell's, or a mount point
        for path in sorted(draft.iterdir(), key=lambda path: path.name == "config.yaml"):
            path.rename(directory / path.name)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return channels.pop(), warnings


def _check_source(linked: Path, folder: Path) -> None:
    """Raises UserError unless ``linked``, of a workspace, is of the sequence in ``folder``."""
    truth = "".join(f"{line}\n" for line in ground_truth_lines(folder / "groundtruth.txt"))
    if (linked / "color").resolve() != (folder / "color").resolve():
        found = f"links to {(linked / 'color').resolve().parent}"
    elif (linked / "groundtruth.txt").read_text(encoding="utf-8") != truth:
        found = "has another ground truth"
    else:
        return
    raise UserError(
        f"{linked} {found}, and the sequence to evaluate is {folder}; its results would be of "
        "other data: choose a new folder for the workspace"
    )


def _tracker_section(
    name: str,
    tracker_param: str,
    checkpoint: str | Path | None,
    device: str,
    precision: str | None,
    channel: str,
    timeout: int,
    paths: Sequence[str | Path],
) -> str:
    settings = {
        "label": name,
        "protocol": "traxpython",
        "command": SERVER,
        "python": shlex.quote(sys.executable),  # the toolkit splits the command as a shell does
        "paths": os.pathsep.join(str(Path(path).resolve()) for path in paths),
        "timeout": str(timeout),
        "env_SRFT_TRACKER": tracker_param,
        "env_SRFT_DEVICE": device,
        "env_SRFT_CHANNEL": channel,
    }
    if precision is not None:
        settings["env_SRFT_PRECISION"] = precision
    if checkpoint is not None:
        settings["env_SRFT_CHECKPOINT"] = str(Path(checkpoint).resolve())
    lines = [f"{key} = {value.replace('%', '%%')}\n" for key, value in settings.items()]
    return f"[{name}]\n" + "".join(lines)


def _add_tracker(path: Path, name: str, section: str) -> None:
    new = configparser.ConfigParser()
    new.read_string(section)
    old = _read_ini(path)
    if name not in old:
        text = path.read_text(encoding="utf-8")
        write_text(path, text + ("\n" if text else "") + section)
    elif dict(old[name]) != dict(new[name]):
        raise UserError(
            f"{path} has a tracker {name!r} with other settings; choose another name, or remove "
            "its section and its results"
        )


def _read_ini(path: Path) -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    try:
        config.read(path, encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    return config


def _auxiliary(directory: Path) -> str:
    described = filter(None, map(read_properties, sorted((directory / "sequences").iterdir())))
    return "ir" if "channels.ir" in next(described, {}) else "depth"
