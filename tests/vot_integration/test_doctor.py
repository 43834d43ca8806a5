"""Each trap that the doctor knows, set on purpose."""

import os

import pytest

from srft_plugin.errors import UserError
from vot_integration.doctor import diagnose
from vot_integration.results import write_run
from vot_integration.runner import all_runs


def replace(path: str, old: str, new: str):
    def spoil(directory):
        file = directory / path
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new, 1), newline="")

    return spoil


def remove(path: str):
    return lambda directory: (directory / path).unlink()


def no_text(path: str):
    return lambda directory: (directory / path).write_bytes(b"\xff\xfea\x00\n\x00")


INI, LIST, TRUTH = "trackers.ini", "sequences/list.txt", "sequences/a/groundtruth.txt"
SEQUENCE = "sequences/a/sequence"
TRAPS = [
    (replace("config.yaml", "rgbd_longterm.yaml", "votrgbd2021"), "exists in toolkit 0.5 only"),
    (replace("config.yaml", "rgbd_longterm.yaml", "vot2021/rgbd"), "downloads the challenge's"),
    (replace("config.yaml", "rgbd_longterm.yaml", "tests/basic"), "no RGB-D stack"),
    (remove("rgbd_longterm.yaml"), "rgbd_longterm.yaml is missing"),
    (remove(INI), "trackers.ini is missing"),
    (replace(INI, "timeout = 120", "timeout = 1.5"), "timeout '1.5' is not a whole number"),
    (replace(INI, "timeout = 120", "timeout = 0"), "timeout '0' is not a whole number"),
    (replace(INI, "timeout = 120", "timeout = 120  # s"), "ends in a comment"),
    (replace(INI, "timeout = 120", "timeout = 120\nlimit = 5"), "no setting 'limit'"),
    (replace(INI, "timeout = 120", "timeout = 120\nenv_PYTHONPATH = /x"), "overwrites PYTHONPATH"),
    (replace(INI, "timeout = 120", "timeout = 120\narg_x = 5"), "use env_X"),
    (replace(INI, "DEVICE = cpu", "DEVICE = 5%"), "write %% for a % sign"),
    (replace(INI, "python = /", "python = /nowhere/"), "interpreter /nowhere/"),
    (replace(INI, "DEVICE = cpu", "DEVICE = cpu\nenv_SRFT_CHECKPOINT = x.pth"), "checkpoint x.pth"),
    (replace(INI, "traxpython", "python"), "8-bit colour"),
    (replace(INI, "command = ", "command = python "), "starts Python itself"),
    (replace(INI, "[blob]", "[blob.2]"), "blob.2: the toolkit takes letters"),
    (remove(LIST), "would download its own data set"),
    (replace(LIST, "a\n", "a\r\n"), "Windows line ends"),
    (replace(LIST, "c\n", "c\n\n"), "no blank line"),
    (replace(LIST, "c\n", "c\nd\n"), "names d, which"),
    (no_text(LIST), "which"),
    (remove(SEQUENCE), "no `sequence` file"),
    (no_text(SEQUENCE), "must name channels.color and"),
    (no_text(TRUTH), "groundtruth.txt, line 1: found"),
    (replace(SEQUENCE, "depth/%08d.png", "depth"), "means depth/%08d.jpg"),
    (replace(SEQUENCE, "channels.depth=depth/%08d.png\n", ""), "must name channels.color and"),
    (replace(SEQUENCE, "length=20", "length=25"), "F becomes 0"),
    (replace(SEQUENCE, "length=20", "length=four"), "found length=four, expected the number"),
    (replace(SEQUENCE, "length=20\n", ""), "found length=(none), expected the number"),
    (replace(TRUTH, ",", "\t"), "tabs or blank lines"),
    (replace(TRUTH, "nan,nan,nan,nan", "0,0,0,0"), "count as visible"),
    (replace(TRUTH, "nan,nan,nan,nan", "nan"), "write nan four times"),
    (replace(TRUTH, "nan,nan,nan,nan", "absent"), "found 'absent'"),
    (replace(TRUTH, "nan,nan,nan,nan\n", ""), "19 boxes for 20 frames"),
    (replace(TRUTH, "nan,nan,nan,nan\n", "1,2,3,4\n1,2,3,4\n"), "21 boxes for 20 frames"),
]


@pytest.mark.parametrize(("trap", "finding"), TRAPS, ids=[finding for _, finding in TRAPS])
def test_traps_are_found(make_workspace, trap, finding):
    workspace = make_workspace()
    assert diagnose(workspace.directory) == []
    trap(workspace.directory)
    assert any(finding in line for line in diagnose(workspace.directory))


def test_a_checkpoint_that_only_this_folder_has(make_workspace, tmp_path, monkeypatch):
    """The toolkit starts a tracker in a temporary folder."""
    workspace = make_workspace()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pth").touch()
    replace(INI, "DEVICE = cpu", "DEVICE = cpu\nenv_SRFT_CHECKPOINT = x.pth")(workspace.directory)
    (finding,) = diagnose(workspace.directory)
    assert "give an absolute path" in finding


@pytest.mark.parametrize(
    ("values", "finding"),
    [
        ([], "is empty"),
        ([0] * 20, "names no anchor"),
        ([1] + [0] * 20, "has 21 values, the sequence has 20 frames"),
        ([1] + [0] * 18, "19 values for 20 frames"),
        ([1] + [0] * 9 + [1] + [0] * 9, "frame 11 is an anchor, but its box is absent"),
    ],
)
@pytest.mark.parametrize("stack", ["rgbd_multistart.yaml", "vot2022/rgbd"])
def test_anchors(make_workspace, values, finding, stack):
    workspace = make_workspace(benchmark="vot-rgbd2022")
    assert diagnose(workspace.directory) == []
    replace("config.yaml", "rgbd_multistart.yaml", stack)(workspace.directory)
    anchors = workspace.source("a") / "anchor.value"
    anchors.unlink()  # a link to the data set
    anchors.write_text("".join(f"{value}\n" for value in values))
    assert any(f.startswith("a: ") and finding in f for f in diagnose(workspace.directory))


def test_names_that_the_toolkit_globs(make_workspace):
    directory = make_workspace().directory
    (directory / "sequences/a").rename(directory / "sequences/a[1]")
    replace(LIST, "a\n", "a[1]\n")(directory)
    assert [finding for finding in diagnose(directory) if "for patterns" in finding] == [
        "a[1]: the toolkit takes * ? [ in names for patterns; rename what has them"
    ]


def test_second_ground_truth(make_workspace):
    workspace = make_workspace()
    (workspace.directory / "sequences" / "b" / "groundtruth_2.txt").write_text("1,2,3,4\n")
    (finding,) = diagnose(workspace.directory)
    assert "b: groundtruth_2.txt makes the toolkit ignore" in finding


def test_results_and_cache(make_workspace):
    workspace = make_workspace()
    runs = list(all_runs(workspace, "blob"))
    for folder, run in runs:
        boxes = [(1, 1, 5, 5)] * len(run.frames)
        write_run(folder, run, boxes, {"confidence": [None, *[0.5] * (len(boxes) - 1)]})
    assert diagnose(workspace.directory) == []
    cached = workspace.directory / "cache" / "analysis" / "old"
    cached.mkdir(parents=True)
    (cached / "figure").write_text("")
    os.utime(cached / "figure", (0, 0))
    (finding,) = diagnose(workspace.directory)
    assert "older than the results" in finding
    folder, run = runs[0]
    (folder / f"{run.name}_confidence.value").unlink()
    assert any("1 of 3 results are missing or damaged" in f for f in diagnose(workspace.directory))


def test_no_workspace(tmp_path):
    with pytest.raises(UserError, match="no workspace"):
        diagnose(tmp_path)
    (tmp_path / "config.yaml").write_text("registry: [")
    with pytest.raises(UserError, match="config.yaml is no YAML: while parsing"):
        diagnose(tmp_path)
    (tmp_path / "config.yaml").write_text("votrgbd2021\n")
    with pytest.raises(UserError, match="found 'votrgbd2021', expected `registry"):
        diagnose(tmp_path)
