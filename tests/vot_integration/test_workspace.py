"""`create_workspace`: what the toolkit needs, beside the user's data, and clear refusals."""

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from srft_plugin.errors import UserError
from vot_integration.results import ground_truth
from vot_integration.runner import chosen
from vot_integration.sequences import ground_truth_lines
from vot_integration.workspace import eao_range, open_workspace, tracker_settings

from .conftest import write_sequence


def snapshot(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


def test_files_and_untouched_data(make_workspace, data_set):
    before = snapshot(data_set)
    workspace = make_workspace()
    assert snapshot(data_set) == before
    assert workspace.sequences == ("a", "b", "c")
    assert workspace.trackers == ("blob",)
    folder = workspace.directory / "sequences" / "b"
    assert (folder / "color").resolve() == data_set / "b" / "color"
    assert "length=30\n" in (folder / "sequence").read_text()
    assert "channels.depth=depth/%08d.png\n" in (folder / "sequence").read_text()
    assert (folder / "groundtruth.txt").read_text() == (data_set / "b/groundtruth.txt").read_text()


def test_trackers_are_added(make_workspace):
    make_workspace("blob")
    assert make_workspace("still").trackers == ("blob", "still")
    assert make_workspace("still").trackers == ("blob", "still")  # the same again
    with pytest.raises(UserError, match="'still' with other settings"):
        make_workspace("still", device="cuda:0")


def test_settings_survive_the_ini_format(make_workspace, tmp_path):
    checkpoint = tmp_path / "100% [best].safetensors"
    checkpoint.write_bytes(b"")
    settings = tracker_settings(make_workspace(checkpoint=checkpoint), "blob")
    assert settings["env_srft_checkpoint"] == str(checkpoint)


def test_absent_frames_become_nan(tmp_path, make_workspace):
    source = write_sequence(tmp_path / "data" / "s", 6)
    (source / "groundtruth.txt").write_text(
        "1,2,3,4\r\n0,0,0,0\r\n1\t2\t3\t4\r\n5,6,-1,-1\r\n0\r\n1.50, 2, 3, 4\r\n\r\n"
    )
    workspace = make_workspace(sequences=tmp_path / "data")
    (warning,) = workspace.warnings
    assert "2 absent frames are written as boxes without area" in warning
    lines = (workspace.directory / "sequences/s/groundtruth.txt").read_text().splitlines()
    absent = "nan,nan,nan,nan"
    assert lines == ["1,2,3,4", absent, "1,2,3,4", absent, absent, "1.50,2,3,4"]


@given(
    st.lists(
        st.tuples(*[st.floats(0.5, 1e4, width=32)] * 4) | st.none(), min_size=1, max_size=20
    ).filter(any),
    st.sampled_from([",", ", ", "\t", " "]),
)
def test_ground_truth_keeps_its_numbers(tmp_path_factory, boxes, separator):
    path = tmp_path_factory.getbasetemp() / "groundtruth.txt"
    rows = [("nan",) * 4 if box is None else map(repr, box) for box in boxes]
    path.write_text("\n".join(map(separator.join, rows)) + "\n")
    parsed = [tuple(map(float, line.split(","))) for line in ground_truth_lines(path)]
    assert [None if box[0] != box[0] else box for box in parsed] == boxes


def test_fewer_depth_frames_warn(tmp_path, make_workspace):
    source = write_sequence(tmp_path / "data" / "s", 6)
    os.remove(source / "depth" / "00000006.png")
    (warning,) = make_workspace(sequences=tmp_path / "data").warnings
    assert "5 depth frames, 6 colour frames" in warning


def test_fewer_boxes_warn(tmp_path, make_workspace):
    source = write_sequence(tmp_path / "data" / "s", 6)
    (source / "groundtruth.txt").write_text("1,2,3,4\n" * 4)
    (warning,) = make_workspace(sequences=tmp_path / "data").warnings
    assert "4 boxes for 6 frames" in warning


def damage(name, text):
    return lambda source: (source / name).write_text(text)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda s: shutil.rmtree(s / "depth"), "neither a depth nor an ir folder"),
        (lambda s: os.remove(s / "color" / "00000003.jpg"), "lacks 00000003.jpg"),
        (lambda s: os.remove(s / "color" / "00000001.jpg"), "numbered from 1"),
        (lambda s: os.remove(s / "groundtruth.txt"), "groundtruth.txt is missing"),
        (damage("groundtruth.txt", "1,2,3,4\n" * 7), "7 boxes, color/ has 6 frames"),
        (damage("groundtruth.txt", "1,2,3,4\n1,2,3\n"), "line 2: found '1,2,3'"),
        (damage("groundtruth.txt", "nan,nan,nan,nan\n1,2,3,4\n"), "absent in the first frame"),
        (damage("groundtruth.txt", "0,0,0,0\n" * 6), "in no frame"),
    ],
)
def test_unusable_sequences_are_refused(tmp_path, make_workspace, spoil, message):
    spoil(write_sequence(tmp_path / "data" / "s", 6))
    with pytest.raises(UserError, match=message):
        make_workspace(sequences=tmp_path / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]  # nothing left behind


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        (None, "anchor.value is missing"),
        ("0 0 0", "no anchor"),
        ("1 0 yes", "anchor.value, line 3: 'yes' is not numbers"),
        ("1 0 0 0 0 0 1", "7 values, the sequence has 6"),
        ("0 1", "frame 2 is an anchor, but its box is absent"),
    ],
)
def test_unusable_anchors_are_refused(tmp_path, make_workspace, anchors, message):
    source = write_sequence(tmp_path / "data" / "s", 6, absent=range(1, 2))
    if anchors is not None:
        (source / "anchor.value").write_text(anchors.replace(" ", "\n") + "\n")
    with pytest.raises(UserError, match=message):
        make_workspace(benchmark="vot-rgbd2022", sequences=tmp_path / "data")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"benchmark": "depthrack"}, "unknown benchmark 'depthrack'"),
        ({"name": "a tracker"}, "only letters"),
        ({"name": "DEFAULT"}, "and not DEFAULT"),
        ({"checkpoint": "/nowhere/x.safetensors"}, "checkpoint /nowhere/x.safetensors"),
        ({"sequences": "/nowhere"}, "/nowhere is not a folder"),
    ],
)
def test_unusable_arguments_are_refused(make_workspace, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        make_workspace(**options)
    assert not (tmp_path / "workspace").exists()


def test_names_that_the_toolkit_takes_for_patterns_are_refused(make_workspace, tmp_path):
    write_sequence(tmp_path / "data" / "b[2]", 30)
    with pytest.raises(UserError, match=r"b\[2\]: the toolkit takes .* rename what has them"):
        make_workspace(sequences=tmp_path / "data")


def test_a_byte_order_mark_and_semicolons_are_no_numbers(make_workspace, tmp_path):
    write_sequence(tmp_path / "data" / "b", 30)
    truth = tmp_path / "data" / "b" / "groundtruth.txt"
    expected = truth.read_text()
    truth.write_text("\ufeff" + expected.replace(",", ";"), "utf-8")
    workspace = make_workspace(sequences=tmp_path / "data")
    written = (workspace.directory / "sequences" / "b" / "groundtruth.txt").read_text()
    assert written == expected


def test_settings_that_were_spoilt_are_named(make_workspace):
    workspace = make_workspace()
    file = workspace.directory / "trackers.ini"
    with file.open("a") as ini:
        ini.write("env_SRFT_NOTE = 50% of\n")
    with pytest.raises(UserError, match="trackers.ini: .* write %% for a % sign"):
        tracker_settings(workspace, "blob")
    file.write_text("")
    with pytest.raises(UserError, match="has no tracker; `srft vot init` adds one"):
        chosen(open_workspace(workspace.directory), None)


@pytest.mark.parametrize(
    ("old", "new"), [("low: 115", "low: 900"), ("low: 115", ""), ("low: 115", "low: x")]
)
def test_a_spoilt_range_is_named(make_workspace, old, new):
    workspace = make_workspace(benchmark="vot-rgbd2022")
    stack = workspace.directory / workspace.benchmark.stack
    text = stack.read_text()
    assert old in text and eao_range(workspace) == (115, 755)
    stack.write_text(text.replace(old, new))
    with pytest.raises(UserError, match="expected one analysis multistart_eao_score with 0 < low"):
        eao_range(workspace)


def test_list_txt_chooses(tmp_path, make_workspace):
    for name in ("x", "y", "z"):
        write_sequence(tmp_path / "data" / name, 4)
    (tmp_path / "data" / "list.txt").write_text("z\r\nx\r\n\r\n")
    assert make_workspace(sequences=tmp_path / "data").sequences == ("z", "x")
    (tmp_path / "data" / "list.txt").write_text("z\nw\n")
    with pytest.raises(UserError, match="names w, but"):
        make_workspace(sequences=tmp_path / "data")


def test_equal_names_are_refused(tmp_path, make_workspace):
    for folder in ("data/x", "elsewhere/x"):
        write_sequence(tmp_path / folder, 4)
    (tmp_path / "data" / "list.txt").write_text(f"x\n{tmp_path}/elsewhere/x\n")
    with pytest.raises(UserError, match="names x more than once"):
        make_workspace(sequences=tmp_path / "data")


def test_another_data_set_is_refused(make_workspace, tmp_path):
    make_workspace()
    write_sequence(tmp_path / "data" / "s", 4)
    with pytest.raises(UserError, match="other sequences"):
        make_workspace("still", sequences=tmp_path / "data")


def test_the_same_names_with_other_data_are_refused(make_workspace, tmp_path):
    for root in ("data", "more"):
        write_sequence(tmp_path / root / "s", 4)
    make_workspace(sequences=tmp_path / "data")
    make_workspace("still", sequences=tmp_path / "data")
    with pytest.raises(UserError, match="links to .*data/s.*of other data"):
        make_workspace("more", sequences=tmp_path / "more")
    truth = tmp_path / "data" / "s" / "groundtruth.txt"
    truth.write_text(truth.read_text().replace("1", "2"))
    with pytest.raises(UserError, match="another ground truth"):
        make_workspace("more", sequences=tmp_path / "data")


def test_nothing_beside_the_workspace_is_touched_and_a_folder_that_is_there_stays(
    make_workspace, tmp_path
):
    folder, beside = tmp_path / "workspace", tmp_path / "workspace.draft"
    beside.mkdir()
    (beside / "notes.txt").touch()
    folder.mkdir()
    number = folder.stat().st_ino  # of the folder in which a shell may stand
    make_workspace()
    assert folder.stat().st_ino == number and (beside / "notes.txt").exists()
    assert sorted(path.name for path in tmp_path.glob("*workspace*")) == [
        "workspace", "workspace.draft",
    ]  # fmt: skip


def test_no_workspace(tmp_path, make_workspace):
    with pytest.raises(UserError, match="no workspace"):
        open_workspace(tmp_path)
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="exists and is no workspace"):
        make_workspace()


def test_missing_list_txt(make_workspace):
    workspace = make_workspace()
    (workspace.directory / "sequences" / "list.txt").unlink()
    with pytest.raises(UserError, match=r"list\.txt is missing"):
        open_workspace(workspace.directory)


def test_unknown_tracker_suggests_the_nearest(make_workspace):
    with pytest.raises(UserError, match="unknown tracker 'blop'; did you mean 'blob'"):
        tracker_settings(make_workspace(), "blop")


def test_a_tracker_is_added_where_no_sequence_says_what_it_holds(make_workspace):
    workspace = make_workspace("blob")
    for name in workspace.sequences:
        (workspace.source(name) / "sequence").unlink()
    assert make_workspace("still").trackers == ("blob", "still")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "the file is empty"),
        (lambda text: text + text, "groundtruth.txt has .* boxes for .* frames"),
    ],
)
def test_a_spoilt_ground_truth_is_named(make_workspace, change, message):
    workspace = make_workspace()
    folder = workspace.source(workspace.sequences[0])
    file = folder / "groundtruth.txt"
    file.write_text(change(file.read_text()))
    with pytest.raises(UserError, match=message):
        ground_truth(folder)
