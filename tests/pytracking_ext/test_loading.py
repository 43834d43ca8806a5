"""Result files as trackers' authors publish them."""

import struct

import numpy as np
import pytest

from pytracking_ext.evaluation.loading import read_predictions, read_result_boxes
from srft_plugin.errors import UserError

BOXES = np.array([[1.5, 2, 3, 4], [5, 6, 7, 8]])


@pytest.mark.parametrize("separator", [",", "\t", " ", ", "])
def test_four_numbers(tmp_path, separator):
    text = "\r\n".join(separator.join(map(str, row)) for row in BOXES.tolist()) + "\n\n"
    (tmp_path / "bag.txt").write_bytes(text.encode())
    np.testing.assert_array_equal(read_predictions(tmp_path, ["bag"])["bag"].boxes, BOXES)


def test_polygons_prefixes_and_pixels_from_one(tmp_path):
    corners = [f"{x},{y},{x + w},{y},{x + w},{y + h},{x},{y + h}" for x, y, w, h in BOXES]
    (tmp_path / "Tracker_bag.txt").write_text("\n".join(corners))
    found = read_predictions(tmp_path, ["bag", "cup"], base=1)
    assert list(found) == ["bag"]
    np.testing.assert_array_equal(found["bag"].boxes, BOXES - [1, 1, 0, 0])
    (tmp_path / "Other_bag.txt").write_text("\n".join(corners))
    with pytest.raises(UserError, match="keep one tracker per folder"):
        read_predictions(tmp_path, ["bag"])


@pytest.mark.parametrize("prefix", ["", "Tracker_"])
def test_a_name_that_ends_in_another_is_not_taken_for_it(tmp_path, prefix):
    (tmp_path / f"{prefix}my_bag.txt").write_text("1,2,3,4\n")
    assert list(read_predictions(tmp_path, ["bag", "my_bag"])) == ["my_bag"]
    assert read_predictions(tmp_path, ["bag"], others=["my_bag"]) == {}  # which cannot be opened
    (tmp_path / f"{prefix}bag.txt").write_text("5,6,7,8\n")
    found = read_predictions(tmp_path, ["bag", "my_bag"])
    assert [found[name].boxes[0, 0] for name in ("bag", "my_bag")] == [5, 1]


@pytest.mark.parametrize(
    "suffix, text",
    [
        ("_confidence.txt", "0.5\n0.25\n"),
        ("_confidence.txt", "\ufeff0.5\n0.25\n"),  # as Windows writes it
        ("_object_presence_scores.txt", "0.5\n0.25"),
        ("_confidence.value", "\n0.25\n"),
    ],
)
def test_confidences(tmp_path, suffix, text):
    (tmp_path / "bag.txt").write_text("1,2,3,4\n5,6,7,8\n")
    (tmp_path / f"bag{suffix}").write_text(text, encoding="utf-8")
    confidences = read_predictions(tmp_path, ["bag"])["bag"].confidences
    np.testing.assert_array_equal(confidences[1:], [0.25])
    (tmp_path / f"bag{suffix}").write_text("0.5\n")
    with pytest.raises(UserError, match="has 1 rows but bag.txt 2"):
        read_predictions(tmp_path, ["bag"])
    (tmp_path / f"bag{suffix}").write_text("0.5\nhigh\n")
    with pytest.raises(UserError, match="high"):
        read_predictions(tmp_path, ["bag"])
    (tmp_path / f"bag{suffix}").write_bytes(b"\xff\xfe0\n")
    with pytest.raises(UserError, match="expected one number per line"):
        read_predictions(tmp_path, ["bag"])


def test_vot_trajectories(tmp_path):
    expected = np.array([[np.nan] * 4, [5, 6, 7, 8]])
    folder = tmp_path / "bag"
    folder.mkdir()
    data = (
        struct.pack("<hI", 1, 2) + struct.pack("<BI", 0, 1) + struct.pack("<Bffff", 1, 5, 6, 7, 8)
    )
    (folder / "bag_001.bin").write_bytes(data)
    (folder / "bag_001_confidence.value").write_text("\n0.5\n")
    prediction = read_predictions(tmp_path, ["bag"])["bag"]
    np.testing.assert_array_equal(prediction.boxes, expected)
    np.testing.assert_array_equal(prediction.confidences, [np.nan, 0.5])
    (folder / "bag_001.txt").write_text("1\n5,6,7,8\n")
    np.testing.assert_array_equal(read_predictions(tmp_path, ["bag"])["bag"].boxes, expected)
    (folder / "bag_001.bin").write_bytes(data[:-3])
    with pytest.raises(UserError, match="truncated"):
        read_result_boxes(folder / "bag_001.bin")
    (folder / "bag_001.bin").write_bytes(struct.pack("<hI", 1, 0))
    assert read_result_boxes(folder / "bag_001.bin").shape == (0, 4)
    (folder / "bag_001.txt").write_text("1\n5,6,x,8\n")
    with pytest.raises(UserError, match="line 2"):
        read_result_boxes(folder / "bag_001.txt")


def test_files_that_are_no_results(tmp_path):
    with pytest.raises(UserError, match="not a folder of results"):
        read_predictions(tmp_path / "gone", ["bag"])
    for text, message in (("", "empty"), ("1,2,3\n", "line 1"), ("1,2,3,4\n1,2,a,4\n", "line 2")):
        (tmp_path / "bag.txt").write_text(text)
        with pytest.raises(UserError, match=message):
            read_predictions(tmp_path, ["bag"])
