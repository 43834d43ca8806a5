"""The comparison of two networks; the pages of the documentation run the other examples."""

import sys
from pathlib import Path

import pytest

from ltr_ext.models.checkpoint import BUNDLED
from srft_plugin.cli import main

EXAMPLE = Path(__file__).parents[2] / "examples" / "compare_trackers.py"


def test_two_networks_on_generated_videos(base, load_script, tmp_path, monkeypatch, capsys):
    root = str(tmp_path)
    generate = ["data", "generate", "depthtrack", root, "--split", "test"]
    assert main([*generate, "--sequences", "2", "--length", "6"]) == 0
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "depthtrack", root, str(BUNDLED), str(base)])
    load_script(EXAMPLE)
    first, second, *differences = capsys.readouterr().out.splitlines()
    assert first.startswith(str(BUNDLED)) and second.startswith(str(base))
    assert [line.split(":")[0] for line in differences] == ["Pr", "Re", "F", "IoU", "SR", "PR"]
    (tmp_path / "test" / "test001" / "color" / "00000003.jpg").write_bytes(b"")
    with pytest.raises(SystemExit, match=r"test001: .*00000003.jpg"):
        load_script(EXAMPLE)
