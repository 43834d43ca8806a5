"""Links SRFT into a pytracking checkout: five untracked files, and nothing else is touched.

`run_training.py srft <config>`, `run_tracker.py srft <param>` and `run_experiment.py srft <name>`
then find SRFT in the checkout. The files are listed in the checkout's ``.git/info/exclude``, so
``git status`` stays clean, and pull, reset and clean leave them alone.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from srft_plugin.errors import UserError

MARK = "# Written by `srft link`; `srft unlink` removes it."
_EXTEND = "from {package} import __path__ as _plugin\n\n__path__.extend(_plugin)\n"
# The shadow package: Python prefers it to the module datasets.py beside it, whose unchanged code
# it runs in its own namespace before the benchmarks of SRFT are registered.
_DATASETS = """\
import sys
from pathlib import Path

_upstream = Path(__file__).parent.parent / "datasets.py"
exec(compile(_upstream.read_text(encoding="utf-8"), str(_upstream), "exec"))

from pytracking_ext.evaluation.upstream import register

register(sys.modules[__name__])
"""
SHIMS = {
    "pytracking/tracker/srft/__init__.py": (
        "from pytracking_ext.tracker.srft import get_tracker_class\n\n"
        '__all__ = ["get_tracker_class"]\n'
    ),
    "pytracking/parameter/srft/__init__.py": _EXTEND.format(
        package="pytracking_ext.parameter.srft"
    ),
    "ltr/train_settings/srft/__init__.py": (
        "import sys\n\n"
        "from ltr_ext.recipe import UnknownConfig\n"
        + _EXTEND.format(package="ltr_ext.train_settings.srft")
        + "sys.meta_path.append(UnknownConfig(__name__))\n"
    ),
    "pytracking/experiments/srft.py": (
        "from pytracking_ext.evaluation.upstream import experiment as __getattr__\n"
    ),
    "pytracking/evaluation/datasets/__init__.py": _DATASETS,
}
_BEGIN, _END = "# srft link: begin\n", "# srft link: end\n"
_CUT = "# (the line before had no end)\n"
_ANY_BYTES = "surrogateescape"  # names of files in the user's own lines may have any encoding


def link(checkout: Path) -> list[Path]:
    """Writes the shims; doing it again changes nothing.

    Returns:
        The files that were written or brought up to date.

    Raises:
        UserError: not a pytracking checkout, a file that is not ours is in the way, or git does
            not open it; nothing was changed then. Or it cannot be written to.
    """
    current = linked(checkout)
    foreign = [path for path in _present(checkout) if not _is_ours(path)]
    if foreign:
        raise UserError(
            f"{foreign[0]} exists and was not written by `srft link`; move it away first. "
            "Nothing was changed"
        )
    written = []
    with _writing(checkout):
        _exclude(checkout)
        for name, code in SHIMS.items():
            if name in current:
                continue
            path = checkout / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(_content(code))
            written.append(path)
    return written


def unlink(checkout: Path) -> list[Path]:
    """Removes the shims and the exclude lines: the checkout is what it was before ``link``.

    Returns:
        The files that were removed.

    Raises:
        UserError: not a pytracking checkout, or git does not open it; nothing was changed then.
            Or it cannot be written to.
    """
    _check(checkout)
    with _writing(checkout):
        _restore_exclude(checkout)
        return [path for path in _present(checkout) if _remove(path)]


def _remove(path: Path) -> bool:
    """Removes a shim and what Python has made of it; False where the file is not ours."""
    if not _is_ours(path):
        return False
    path.unlink()
    if path.name == "__init__.py":
        shutil.rmtree(path.parent / "__pycache__", ignore_errors=True)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()
    else:
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()
    return True


def linked(checkout: Path) -> list[str]:
    """Names of the shims that are in place and current.

    Raises:
        UserError: not a pytracking checkout.
    """
    _check(checkout)
    return [
        name
        for name, code in SHIMS.items()
        if (checkout / name).is_file() and (checkout / name).read_bytes() == _content(code)
    ]


def _check(checkout: Path) -> None:
    for name in ("ltr/run_training.py", "pytracking/evaluation/datasets.py"):
        if not (checkout / name).is_file():
            raise UserError(
                f"{checkout} is no pytracking checkout: no {name}; "
                "give the folder that `git clone` made"
            )


def _content(code: str) -> bytes:
    return f"{MARK}\n{code}".encode()


@contextmanager
def _writing(checkout: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"cannot write to {checkout}: {error}") from error


def _present(checkout: Path) -> list[Path]:
    return [checkout / name for name in SHIMS if (checkout / name).exists()]


def _is_ours(path: Path) -> bool:
    return path.is_file() and path.read_bytes().startswith(MARK.encode())


def _is_linked(checkout: Path) -> bool:
    return any(map(_is_ours, _present(checkout)))


def _other_worktrees(checkout: Path) -> list[Path]:
    """The folders that share the checkout's ``info/exclude``."""
    command = ["git", "-C", str(checkout), "worktree", "list", "--porcelain"]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    folders = [Path(line[9:]) for line in lines if line.startswith("worktree ")]
    return [folder for folder in folders if folder.resolve() != checkout.resolve()]


def _exclude_file(checkout: Path) -> Path | None:
    """The checkout's ``info/exclude`` (also of a git worktree); None where there is no git.

    Raises:
        UserError: git does not open the checkout, say because it belongs to somebody else.
    """
    if not (checkout / ".git").exists() or shutil.which("git") is None:
        return None
    command = ["git", "-C", str(checkout), "rev-parse", "--git-path", "info/exclude"]
    answer = subprocess.run(command, capture_output=True, text=True)
    if answer.returncode:
        raise UserError(
            f"git does not open {checkout}, so its list of untracked files cannot be kept: "
            f"{answer.stderr.strip()}"
        )
    return checkout / answer.stdout.strip()


def _exclude(checkout: Path) -> None:
    file = _exclude_file(checkout)
    if file is None:
        return
    before = file.read_bytes().decode(errors=_ANY_BYTES) if file.exists() else ""
    if _BEGIN in before:
        return
    folders = [f"{PurePosixPath(name).parent}/" for name in SHIMS if name.endswith("__init__.py")]
    files = [name for name in SHIMS if not name.endswith("__init__.py")]
    lines = "".join(f"/{name}\n" for name in folders + files)
    cut = before and not before.endswith("\n")  # the last line has no end: remember that
    begin = f"\n{_BEGIN}{_CUT}" if cut else _BEGIN
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(f"{before}{begin}{lines}{_END}".encode(errors=_ANY_BYTES))


def _restore_exclude(checkout: Path) -> None:
    file = _exclude_file(checkout)
    if file is None or not file.exists() or any(map(_is_linked, _other_worktrees(checkout))):
        return
    text = file.read_bytes().decode(errors=_ANY_BYTES)
    begin, end = text.find(_BEGIN), text.find(_END)
    if begin < 0 or end < 0:
        return
    before, block, after = text[:begin], text[begin:end], text[end + len(_END) :]
    if _CUT in block:
        before = before[:-1]
    file.write_bytes((before + after).encode(errors=_ANY_BYTES))
