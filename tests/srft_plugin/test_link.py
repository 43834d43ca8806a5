"""Linking into a pytracking checkout: nothing tracked changes, and unlinking leaves no trace."""

import subprocess
import sys
from pathlib import Path

import pytest

from srft_plugin.errors import UserError
from srft_plugin.link import SHIMS, link, linked, unlink

STAND_IN = {  # a checkout with the same contracts as upstream's
    "ltr/run_training.py": "",
    "ltr/__init__.py": "",
    "ltr/train_settings/__init__.py": "",
    "pytracking/__init__.py": "",
    "pytracking/tracker/__init__.py": "",
    "pytracking/parameter/__init__.py": "",
    "pytracking/experiments/__init__.py": "",
    "pytracking/evaluation/__init__.py": "from .datasets import get_dataset\n",
    "pytracking/evaluation/data.py": (
        "class Sequence: pass\nclass SequenceList(list): pass\nclass BaseDataset: pass\n"
    ),
    "pytracking/evaluation/datasets.py": (
        "from collections import namedtuple\n"
        "from pytracking.evaluation.data import SequenceList\n"
        "DatasetInfo = namedtuple('DatasetInfo', ['module', 'class_name', 'kwargs'])\n"
        "dataset_dict = dict(otb=DatasetInfo('m', 'c', {}))\n"
        "def get_dataset(*names): return [dataset_dict[name] for name in names]\n"
    ),
}


@pytest.fixture
def checkout(tmp_path):
    for name, text in STAND_IN.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    return tmp_path


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def git_status(folder: Path) -> str:
    command = ["git", "-C", str(folder), "status", "--porcelain", "-uall"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("exclude", [None, "", "*.pyc\n", "*.pyc", "caf\xe9\n"])
def test_unlink_restores_every_byte(checkout, exclude):
    file = checkout / ".git/info/exclude"
    if exclude is None:
        file.unlink()
    else:
        file.write_text(exclude, encoding="latin-1")
    before, status = tree(checkout), git_status(checkout)
    link(checkout)
    assert git_status(checkout) == status
    unlink(checkout)
    after = tree(checkout)
    if exclude is None:
        assert after.pop(".git/info/exclude") == b""
    after.pop(".git/index", None)
    before.pop(".git/index", None)
    assert after == before
    assert not (checkout / "pytracking/tracker/srft").exists()


def test_linking_again_changes_nothing(checkout):
    assert len(link(checkout)) == len(SHIMS)
    before = tree(checkout)
    assert link(checkout) == []
    assert tree(checkout) == before
    assert linked(checkout) == list(SHIMS)


@pytest.mark.parametrize("text", ["mine = 1\n", "# caf\xe9\n"])
def test_foreign_files_are_not_overwritten(checkout, text):
    foreign = checkout / "pytracking/experiments/srft.py"
    foreign.write_text(text, encoding="latin-1")
    before = tree(checkout)
    with pytest.raises(UserError, match=r"srft.py exists and was not written by"):
        link(checkout)
    assert tree(checkout) == before
    assert unlink(checkout) == []
    assert foreign.read_text(encoding="latin-1") == text


def test_a_checkout_that_cannot_be_written_to_is_named(checkout):
    link(checkout)
    before = tree(checkout)
    exclude = checkout / ".git/info/exclude"
    exclude.unlink()
    exclude.mkdir()  # what holds for root as well
    for command in (link, unlink):
        with pytest.raises(UserError, match=f"cannot write to {checkout}: .*exclude"):
            command(checkout)
    exclude.rmdir()
    before.pop(".git/info/exclude")
    assert tree(checkout) == before


@pytest.mark.parametrize("command", [link, unlink])
def test_a_checkout_that_git_does_not_open_is_left_alone(checkout, command):
    if command is unlink:
        link(checkout)
    (checkout / ".git/HEAD").unlink()
    before = tree(checkout)
    with pytest.raises(UserError, match="git does not open .*not a git repository"):
        command(checkout)
    assert tree(checkout) == before


def test_other_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="no pytracking checkout"):
        link(tmp_path)
    with pytest.raises(UserError, match="no pytracking checkout"):
        unlink(tmp_path)


def test_the_host_finds_tracker_configs_and_benchmarks(checkout):
    link(checkout)
    code = (
        "import importlib\n"
        "from pytracking.evaluation import get_dataset\n"
        "tracker = importlib.import_module('pytracking.tracker.srft')\n"
        "assert tracker.get_tracker_class().__name__ == 'SRFTTracker'\n"
        "assert importlib.import_module('pytracking.parameter.srft.default_rgb').parameters\n"
        "assert importlib.import_module('ltr.train_settings.srft.tiny_depth').run\n"
        "try:\n"
        "    importlib.import_module('ltr.train_settings.srft.tiny_dept')\n"
        "except Exception as error:\n"
        "    assert \"did you mean 'tiny_depth'\" in str(error)\n"
        "else:\n"
        "    raise AssertionError('found a config that there is not')\n"
        "assert get_dataset('otb') and get_dataset('depthtrack')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    unlink(checkout)
    assert not (checkout / "pytracking/evaluation/datasets").exists()


def test_the_list_of_untracked_files_stays_while_another_worktree_is_linked(checkout):
    """Git's worktrees share it."""
    git = ["git", "-C", str(checkout), "-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-qm", "all"], check=True)
    other = checkout.parent / f"{checkout.name}-other"
    subprocess.run([*git, "worktree", "add", "-q", str(other)], check=True)
    file = checkout / ".git/info/exclude"
    before = file.read_bytes()
    for folder in (checkout, other):
        link(folder)
    unlink(checkout)
    assert git_status(checkout) == git_status(other) == ""
    unlink(other)
    assert file.read_bytes() == before
