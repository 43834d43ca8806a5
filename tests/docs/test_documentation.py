"""Every shell and Python block of README and docs is run, on generated data and small sizes.

A block that cannot be run here stands below a comment that says why:
``<!-- not run: needs DepthTrack -->``. Commands of one page run in order, in one folder.
"""

import os
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from srft_plugin.cli import main

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]*?) -->\s*\n)?"
    r"^(?P<indent> *)```(?P<language>sh|python)\n(?P<body>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
SMALL = {  # what every training of the documentation is cut down to
    "epochs": 1, "samples_per_epoch": 8, "batch_size": 4, "prior_samples": 16, "workers": 0,
}  # fmt: skip
TRAINING = {("srft", "train"), ("-m", "ltr_ext.run_training"), ("examples/own_tracker.py", "train")}


def blocks(page: Path):
    return [match.groupdict() for match in BLOCK.finditer(page.read_text("utf-8"))]


def test_no_block_escapes():
    for page in PAGES:
        text = page.read_text("utf-8")
        opened = re.findall(r"^ *```(.*)$", text, re.MULTILINE)[::2]
        assert set(opened) <= {"sh", "python", "text", "toml"}, page
        assert len(blocks(page)) == sum(language in ("sh", "python") for language in opened)
        outside = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
        assert not re.findall(r"\n\n {4,}\S.*", outside), f"{page}: fence indented blocks"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_blocks_of_a_page_run(page, tmp_path, monkeypatch):
    todo = [block for block in blocks(page) if not block["reason"]]
    if not todo:
        pytest.skip("nothing to run on this page")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SRFT_HOME", str(tmp_path / "home"))
    names: dict = {}
    for block in todo:
        body = re.sub(rf"^{block['indent']}", "", block["body"], flags=re.MULTILINE)
        if block["language"] == "python":
            exec(compile(body, page.name, "exec"), names)
        else:
            for command in commands(body):
                run(command, monkeypatch)


def commands(body: str):
    """The commands of a shell block, without comments, lines that end in a backslash joined."""
    for line in body.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words:
            end = words.index("&&") if "&&" in words else len(words)
            yield words[:end]
            words = words[end + 1 :]


def run(words: list[str], monkeypatch):
    if TRAINING & {tuple(words[:2]), tuple(words[1:3])}:
        words = words + [f"{key}={value}" for key, value in SMALL.items()]
    if words[:3] == ["srft", "data", "generate"]:
        words = [*words, "--sequences", "2", "--length", "6"]
    if words[0] == "srft":
        assert main(words[1:]) == 0, words
    elif words[0] == "python":
        is_module = words[1] == "-m"
        monkeypatch.setattr(sys, "argv", words[1 + is_module :])
        try:
            if is_module:
                runpy.run_module(words[2], run_name="__main__")
            else:
                runpy.run_path(str(ROOT / words[1]), run_name="__main__")
        except SystemExit as ended:
            assert not ended.code, words
    elif words[0] == "cd":
        os.chdir(words[1])
    else:
        raise AssertionError(f"{words}: neither srft nor python; say why it is not run")
