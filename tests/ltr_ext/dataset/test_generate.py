"""Generated data sets in public layouts, as the command writes them."""

import pytest

from ltr_ext.dataset.registry import open_dataset
from srft_plugin.cli import main


@pytest.mark.parametrize("kind", ["depthtrack", "lasher", "visevent", "coesot", "fe108", "got10k"])
def test_readers_read_what_is_generated(kind, tmp_path, capsys):
    for split, count in (("train", 2), ("test", 1)):
        command = ["data", "generate", kind, str(tmp_path), "--split", split, "--length", "3"]
        assert main([*command, "--sequences", str(count)]) == 0
        data = open_dataset(kind, tmp_path, split)
        assert [sequence.name for sequence in data] == [f"{split}{i:03d}" for i in range(count)]
        assert len(data[0]) == 3 and data[0].visible[0]
        if kind == "got10k":
            assert data[0].frames.aux(0) is None
        else:
            assert data[0].frames.aux(0).shape == data[0].frames.rgb(0).shape
    assert "1 sequences:" in capsys.readouterr().out


@pytest.mark.parametrize(
    "wrong", [["--length", "0"], ["--sequences", "0"], ["--sequences", "-2"], ["--seed", "-1"]]
)
def test_numbers_that_make_no_video_are_errors(wrong, tmp_path, capsys):
    assert main(["data", "generate", "depthtrack", str(tmp_path / "new"), *wrong]) == 2
    assert "expected 1 or more" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_a_part_that_the_data_set_does_not_have(tmp_path, capsys):
    command = ["data", "generate", "rgbt234", str(tmp_path / "new"), "--length", "3"]
    assert main(command) == 2
    assert "part of rgbt234" in capsys.readouterr().err
    assert main([*command, "--split", "test", "--sequences", "1"]) == 0
    assert len(open_dataset("rgbt234", tmp_path / "new", "test")[0]) == 3


def test_a_layout_that_cannot_be_generated(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["data", "generate", "lahser", str(tmp_path)])
    assert "did you mean 'lasher'" in capsys.readouterr().err


def test_options_say_what_the_scenes_contain(tmp_path, capsys):
    command = ["data", "generate", "depthtrack", str(tmp_path / "new"), "--sequences", "1"]
    assert main([*command, "--length", "40", "leave=1", "limbs=1,2", "tilt=0.2"]) == 0
    (sequence,) = open_dataset("depthtrack", tmp_path / "new", "train")
    assert 3 < (~sequence.visible).sum() < 30
    capsys.readouterr()
    for option, message in (
        ("length=9", "length=9: expected --length instead"),
        ("leaves=1", "did you mean 'leave'"),
        ("leave=2", "leave is 2.0; expected a number from 0 to 1"),
        ("limbs", "'limbs': expected key=value"),
    ):
        other = ["data", "generate", "depthtrack", str(tmp_path / "other"), option]
        assert main(other) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
