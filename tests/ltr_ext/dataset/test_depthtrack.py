"""A sequence folder in DepthTrack layout, whole and damaged."""

import pickle

import numpy as np
import pytest

from ltr_ext.dataset.files import image_names
from ltr_ext.dataset.registry import open_dataset
from srft_plugin.errors import UserError


@pytest.fixture
def root(tmp_path, copies):
    for name in ("ball10", "ball2"):
        copies.write_rgbd(tmp_path / "train" / name)
    rows = [copies.BOXES[0], ["nan"] * 4, *copies.BOXES[2:]]
    copies.write_rows(tmp_path / "train" / "ball2" / "groundtruth.txt", rows)
    return tmp_path


def test_a_sequence_reads_as_it_was_written(root, copies):
    data = open_dataset("depthtrack", root, "train")
    assert data.names == ["ball2", "ball10"]
    sequence = data[0]
    assert (sequence.name, sequence.modality, len(sequence)) == ("ball2", "depth", 4)
    np.testing.assert_array_equal(sequence.visible, [True, False, True, True])
    np.testing.assert_array_equal(sequence.boxes[3], copies.BOXES[3])
    assert abs(int(sequence.frames.rgb(2).mean()) - 60) <= 1
    aux = sequence.frames.aux(2)
    assert aux.shape == (30, 40, 3) and not np.array_equal(aux[0, 0], aux[0, -1])


def test_the_folder_of_the_sequences_itself_may_be_given(root):
    assert open_dataset("depthtrack", root / "train", "train").names == ["ball2", "ball10"]


def test_a_list_file_chooses_and_orders(root):
    (root / "train" / "list.txt").write_text("ball10\r\nball2\r\n")
    assert open_dataset("depthtrack", root, "train").names == ["ball10", "ball2"]


def test_a_data_set_travels_to_workers(root):
    data = open_dataset("depthtrack", root, "train")
    copy = pickle.loads(pickle.dumps(data))
    np.testing.assert_array_equal(copy[1].boxes, data[1].boxes)


def test_a_sequence_is_read_once(root):
    data = open_dataset("depthtrack", root, "train")
    assert data[1] is data[1]


def test_hidden_files_and_others_are_no_frames(root):
    folder = root / "train" / "ball2" / "color"
    (folder / "._00000001.jpg").write_bytes(b"x")
    (folder / "Thumbs.db").write_bytes(b"x")
    assert len(image_names(folder)) == 4


def remove_depth_frame(folder):
    (folder / "depth" / "00000003.png").unlink()


def remove_depth(folder):
    (folder / "depth").rename(folder / "depth_raw")


def remove_annotation(folder):
    (folder / "groundtruth.txt").unlink()


def shorten_annotation(folder):
    (folder / "groundtruth.txt").write_text("1,2,3,4\n")


def lengthen_annotation(folder):
    (folder / "groundtruth.txt").write_text("1,2,3,4\n" * 5)


def blank_annotation(folder):
    (folder / "groundtruth.txt").write_text("nan,nan,nan,nan\n" * 4)


def drop_column(folder):
    (folder / "groundtruth.txt").write_text("1,2,3\n" * 4)


def remove_colour_frames(folder):
    for path in (folder / "color").iterdir():
        path.unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove_depth_frame, r"4 colour images in color/ but 3 depth images in depth/"),
        (remove_depth, r"no folder of depth images; expected depth"),
        (remove_annotation, r"no ground-truth file; expected groundtruth.txt"),
        (shorten_annotation, r"groundtruth.txt: 1 rows for 4 frames"),
        (lengthen_annotation, r"groundtruth.txt: 5 rows for 4 frames"),
        (blank_annotation, r"no frame shows the target"),
        (drop_column, r"groundtruth.txt, line 1: found 3 numbers"),
        (remove_colour_frames, r"color: no images"),
    ],
)
def test_damage_is_an_error_that_names_the_place(root, damage, message):
    damage(root / "train" / "ball2")
    with pytest.raises(UserError, match=message) as caught:
        open_dataset("depthtrack", root, "train")[0]
    assert "ball2" in str(caught.value)


def test_a_truncated_frame_is_an_error_when_it_is_read(root):
    path = root / "train" / "ball2" / "color" / "00000002.jpg"
    path.write_bytes(path.read_bytes()[:-40])
    sequence = open_dataset("depthtrack", root, "train")[0]
    sequence.frames.rgb(0)
    with pytest.raises(UserError, match=r"ball2/color/00000002\.jpg.*truncated"):
        sequence.frames.rgb(1)


def test_wrong_names_and_places_are_errors(root, tmp_path):
    with pytest.raises(UserError, match="did you mean 'depthtrack'"):
        open_dataset("depthtrak", root)
    with pytest.raises(UserError, match="unknown part of depthtrack 'val'.*Known: train, test"):
        open_dataset("depthtrack", root, "val")
    with pytest.raises(UserError, match="is no folder"):
        open_dataset("depthtrack", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no sequences"):
        open_dataset("depthtrack", tmp_path / "empty")
    with pytest.raises(IndexError):
        open_dataset("depthtrack", root)[2]


def test_real_sequences(shared):
    data = open_dataset("depthtrack", shared / "data" / "RGBD", "test")
    assert [len(sequence) for sequence in (data[0], data[1])] == [50, 50]
    assert data[0].frames.rgb(0).shape == data[0].frames.aux(0).shape == (480, 640, 3)
