"""Everything known to make the toolkit fail, or give wrong figures without a word.

Works on any workspace of an RGB-D stack, also on one that other tools have made: each check reads
the files by itself and takes none of them for granted.
"""

from __future__ import annotations

import configparser
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from srft_plugin.errors import UserError, some

from .results import is_done
from .sequences import AUXILIARY, check_anchors, ground_truth_lines, unmarked_absences
from .workspace import (
    BENCHMARKS,
    MULTISTART,
    NOT_IN_NAMES,
    Workspace,
    open_workspace,
    read_config,
    results_folder,
    taken_for_patterns,
)

STACKS = {  # of the toolkit, and the benchmark whose workspace replaces them
    "votrgbd2019": "cdtb",
    "votrgbd2020": "cdtb",
    "votrgbd2021": "depthtrack",
    "vot2021/rgbd": "depthtrack",
    "votrgbd2022": "vot-rgbd2022",
    "vot2022/rgbd": "vot-rgbd2022",
}
TRAX_PYTHON = {  # settings of a tracker that the toolkit starts by that protocol
    "label", "version", "tags", "storage", "protocol", "command", "paths", "python", "linkpaths",
    "timeout", "socket", "restart",
}  # fmt: skip


def diagnose(directory: str | Path) -> list[str]:
    """Findings, each with its remedy; empty when all is well.

    Raises:
        UserError: ``directory`` has no config.yaml that can be read.
    """
    directory = Path(directory).resolve()
    config = read_config(directory)
    stack = str(config.get("stack"))
    findings = [*_installation(), *_stack(directory, stack), *_trackers(directory)]
    sequences = directory / config.get("sequences", "sequences")
    names, problems = _listed(sequences)
    findings += problems
    if problem := taken_for_patterns([*names, str(directory)]):
        findings.append(problem)
    replaced = STACKS.get(stack)
    anchors = BENCHMARKS[replaced].multistart if replaced else stack == MULTISTART.stack
    for name in names:
        findings += [f"{name}: {problem}" for problem in _sequence(sequences / name, anchors)]
    if not findings:
        findings += _results(open_workspace(directory))
    return findings


def _installation() -> Iterator[str]:
    def installed(package: str) -> tuple[int, ...]:
        try:
            return tuple(int(part) for part in version(package).split(".")[:3] if part.isdigit())
        except PackageNotFoundError:
            return ()

    toolkit = installed("vot-toolkit")
    if not toolkit:
        yield 'vot-toolkit is not installed: pip install -e ".[vot]"'
    elif toolkit < (0, 7, 3):
        yield (
            f"vot-toolkit {version('vot-toolkit')} does not run with today's dependencies: "
            'pip install "vot-toolkit==0.7.4"'
        )
    if installed("attributee") == (0, 1, 10) and sys.version_info >= (3, 11):
        yield (
            "attributee 0.1.10 cannot be imported by Python 3.11 and later: "
            'pip install "attributee==0.1.9"'
        )
    if toolkit and installed("vot-trax") < (4,):
        yield 'vot-trax is missing or older than 4: pip install "vot-trax>=4.0.2,<5"'


def _stack(directory: Path, stack: str) -> Iterator[str]:
    known = {benchmark.stack for benchmark in BENCHMARKS.values()}
    if stack in STACKS:
        if stack.startswith("votrgbd"):
            yield (
                f"stack {stack} exists in toolkit 0.5 only; make a workspace with `srft vot init "
                f"--benchmark {STACKS[stack]}`, whose experiments are the same"
            )
        else:
            yield (
                f"stack {stack} downloads the challenge's sequences whenever list.txt is missing; "
                f"`srft vot init --benchmark {STACKS[stack]}` makes a workspace without that"
            )
    elif stack not in known:
        yield f"stack {stack!r} is no RGB-D stack that SRFT knows; {', '.join(sorted(known))} are"
    elif not (directory / stack).is_file():
        yield f"{directory / stack} is missing; make the workspace anew with `srft vot init`"


def _trackers(directory: Path) -> Iterator[str]:
    path = directory / "trackers.ini"
    if not path.is_file():
        yield f"{path} is missing; `srft vot init` writes it"
        return
    config = configparser.ConfigParser()
    try:
        config.read(path, encoding="utf-8")
        sections = {name: dict(config[name]) for name in config.sections()}
    except configparser.InterpolationError as error:
        yield f"{path}: {error}; write %% for a % sign"
        return
    except (configparser.Error, UnicodeDecodeError) as error:
        yield f"{path} cannot be read: {error}; correct it, or write it anew with `srft vot init`"
        return
    if not sections:
        yield f"{path} has no tracker; `srft vot init` adds one"
    for name, settings in sections.items():
        where = f"trackers.ini, {name}"
        if NOT_IN_NAMES.search(name):
            yield f"{where}: the toolkit takes letters, digits, - and _ in a tracker's name alone"
        for key, value in settings.items():
            if " #" in value or " ;" in value:
                yield f"{where}: {key} ends in a comment, which becomes part of its value"
            if key not in TRAX_PYTHON and not key.startswith(("env_", "meta_", "arg_")):
                yield f"{where}: the toolkit has no setting {key!r} and will not start the tracker"
            if key.startswith("arg_"):
                yield f"{where}: {key} is ignored by newer toolkits; use env_{key[4:].upper()}"
            if key == "env_pythonpath":
                yield f"{where}: the toolkit overwrites PYTHONPATH; put the folders into `paths`"
            if key == "env_srft_checkpoint" and not (
                Path(value).is_absolute() and Path(value).is_file()
            ):
                yield (
                    f"{where}: checkpoint {value} does not exist for the tracker, which runs in a "
                    "folder of its own: give an absolute path"
                )
        try:
            least = int(settings.get("timeout", "30"))
        except ValueError:
            least = 0
        if least < 1:
            yield f"{where}: timeout {settings['timeout']!r} is not a whole number from 1 on"
        python = settings.get("python", sys.executable).strip("'\"")
        if "/" in python and not Path(python).exists():
            yield f"{where}: interpreter {python} does not exist"
        protocol, command = settings.get("protocol"), settings.get("command", "").split()
        if protocol == "python":
            yield f"{where}: protocol python hands over depth as 8-bit colour; use traxpython"
        elif protocol == "traxpython" and len(command) > 1 and "python" in Path(command[0]).name:
            yield (
                f"{where}: protocol traxpython starts Python itself; name the module alone in "
                "`command`, and its folder in `paths`, or use protocol trax"
            )


def _listed(sequences: Path) -> tuple[list[str], list[str]]:
    """Names in list.txt that have a folder, and what is wrong with the rest."""
    listing = sequences / "list.txt"
    if not listing.is_file():
        return [], [
            f"{listing} is missing; the toolkit would download its own data set into the folder. "
            "Write one name per line"
        ]
    lines = listing.read_bytes().decode(errors="replace").split("\n")
    problems = []
    if any(line.endswith("\r") for line in lines):
        problems.append(f"{listing} has Windows line ends; the toolkit finds no sequence")
    if lines[-1] or not all(line.strip() for line in lines[:-1]):
        problems.append(f"{listing}: one name per line, no blank line, a line end after the last")
    names = [line.strip() for line in lines if line.strip()]
    missing = [name for name in names if not (sequences / name).is_dir()]
    if missing:
        problems.append(f"{listing} names {some(missing)}, which {sequences} has not")
    return [name for name in names if name not in missing], problems


def _sequence(folder: Path, anchors: bool) -> Iterator[str]:
    path = folder / "sequence"
    if not path.is_file():
        yield "no `sequence` file, so the toolkit looks for images in the folder itself"
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    pairs = (line.partition("=") for line in text.splitlines())
    description = {key.strip(): value.strip() for key, _, value in pairs}
    frames: dict[str, int] = {}
    for channel in ("color", *AUXILIARY):
        pattern = description.get(f"channels.{channel}")
        if pattern is None:
            continue
        if not pattern.endswith((".jpg", ".png")):
            yield f"channels.{channel}={pattern} means {pattern}/%08d.jpg; name the file pattern"
            continue
        frames[channel] = sum(1 for _ in folder.joinpath(pattern).parent.glob(f"*{pattern[-4:]}"))
    if "channels.color" not in description or len(frames) < 2:
        yield "`sequence` must name channels.color and channels.depth (or channels.ir)"
    length = description.get("length", "")
    if length.isdigit() and frames.get("color", int(length)) < int(length):
        yield (
            f"length={length}, but there are {frames['color']} colour frames; the toolkit does not "
            "check and F becomes 0"
        )
    if len(set(frames.values())) > 1:
        counts = ", ".join(f"{count} {channel}" for channel, count in frames.items())
        yield f"{counts} frames; SRFT tracks frames without depth by RGB, other trackers may fail"
    count = int(length) if length.isdigit() else frames.get("color", 0)
    yield from _annotation(folder, count, anchors)


def _annotation(folder: Path, length: int, anchors: bool) -> Iterator[str]:
    others = sorted(path.name for path in folder.glob("groundtruth_*.txt"))
    if others:
        yield f"{others[0]} makes the toolkit ignore groundtruth.txt; remove it from the workspace"
    path = folder / "groundtruth.txt"
    try:
        repaired = ground_truth_lines(path)  # refuses what is no text
    except UserError as error:
        yield str(error)
        return
    lines = path.read_bytes().decode().split("\n")
    if lines[-1] == "":
        lines.pop()
    if any("\t" in line for line in lines) or any(not line.strip() for line in lines):
        yield "groundtruth.txt has tabs or blank lines, on which the toolkit fails"
    elif any(line.strip().lower() == "nan" for line in lines):
        yield "absent frames are a single `nan`, on which the toolkit fails; write nan four times"
    elif unmarked_absences(path):
        yield "absent frames written as boxes without area count as visible; write nan,nan,nan,nan"
    if len(repaired) > length:
        yield f"{len(repaired)} boxes for {length} frames; the analysis fails"
    elif len(repaired) < length:
        yield f"{len(repaired)} boxes for {length} frames; the rest counts as absent"
    if anchors:
        try:
            given = check_anchors(folder, repaired, length)
        except UserError as error:
            yield str(error)
        else:
            if given < length:
                yield f"anchor.value has {given} values for {length} frames; the rest starts no run"


def _results(workspace: Workspace) -> Iterator[str]:
    from .runner import all_runs

    newest = 0.0
    for tracker in workspace.trackers:
        try:
            runs = list(all_runs(workspace, tracker))
        except UserError as error:
            yield str(error)
            return
        existing = [folder / f"{run.name}.bin" for folder, run in runs]
        existing = [path for path in existing if path.is_file()]
        newest = max([newest, *(path.stat().st_mtime for path in existing)])
        damaged = [run.name for folder, run in runs if not is_done(folder, run)]
        if existing and damaged:
            yield (
                f"{tracker}: {len(damaged)} of {len(runs)} results are missing or damaged "
                f"({damaged[0]}), which the toolkit may score as they are; run `srft vot evaluate`"
            )
        if list(results_folder(workspace, tracker).glob(".staging-*")):
            yield f"{tracker}: an evaluation was killed; `srft vot evaluate` goes on and cleans up"
    cache = workspace.directory / "cache" / "analysis"
    if cache.is_dir() and any(p.stat().st_mtime < newest for p in cache.rglob("*") if p.is_file()):
        yield (
            f"{cache} is older than the results, and `vot analysis` answers from it; remove it, or "
            "set VOT_PERSISTENT_CACHE=0"
        )
