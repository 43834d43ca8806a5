"""The index of a data set gives what its folders give, without what cannot be used."""

import os

import numpy as np
import pytest

from ltr_ext.data.sampler import PairDataset
from ltr_ext.dataset.index import index_path
from ltr_ext.dataset.registry import open_dataset
from ltr_ext.models.checkpoint import BUNDLED
from ltr_ext.models.registry import network_spec
from pytracking_ext.evaluation.running import read_frame, track_many
from pytracking_ext.parameter.srft import from_checkpoint
from srft_plugin.cli import main
from srft_plugin.errors import UserError


def fix_index(name, root, part="test") -> int:
    return main(["data", "check", name, str(root), "--split", part, "--fix-index"])


@pytest.mark.parametrize(
    ("part", "missing"),
    [
        ("train", ["depth/00000003.png"]),
        ("train", ["color/00000003.jpg", "depth/00000003.png"]),
        ("test", ["color/00000003.jpg", "depth/00000003.png"]),
        ("test", ["color/00000003.jpg"]),
    ],
)
def test_boxes_stay_with_their_frames_when_one_is_left_out(write_copy, copies, part, missing):
    root = write_copy("depthtrack")
    folder = (root / "test").rename(root / part)
    for file in missing:
        (folder / "s2" / file).unlink()
    fix_index("depthtrack", root, part)
    sequence = open_dataset("depthtrack", root, part)[0]
    expected = [copies.BOXES[t] for t in (0, 1, 3)]
    np.testing.assert_array_equal(sequence.boxes, expected)
    assert list(sequence.frames.rgb_names) == ["00000001.jpg", "00000002.jpg", "00000004.jpg"]


@pytest.mark.parametrize(
    ("rgb", "aux", "kept", "offset"),
    [
        # each camera lacks another frame: the natural order alone would shift what lies between
        ([1, 2, 4, 5, 6, 7, 8], [1, 2, 3, 4, 5, 7, 8], [1, 2, 4, 5, 7, 8], 0),
        # the cameras count from different numbers, one frame is missing
        ([0, 1, 2, 3, 4, 5, 6, 7], [1, 2, 4, 5, 6, 7, 8], [0, 1, 3, 4, 5, 6, 7], 1),
        ([0, 1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 3, 4, 5, 6], 1),
        # one camera started later
        ([1, 2, 3, 4, 5, 6, 7, 8], [3, 4, 5, 6, 7, 8], [3, 4, 5, 6, 7, 8], 0),
    ],
)
def test_the_index_pairs_by_number_where_frames_are_missing(
    tmp_path, copies, rgb, aux, kept, offset
):
    folder = tmp_path / "trainingset" / "boy"
    copies.write_images(folder / "visible", [f"v{n:04d}.jpg" for n in rgb])
    copies.write_images(folder / "infrared", [f"i{n:04d}.jpg" for n in aux])
    copies.write_rows(folder / "visible.txt", [(t, 2, 12, 9) for t in range(8)])
    assert fix_index("lasher", tmp_path, "train") == 1
    sequence = open_dataset("lasher", tmp_path, "train")[0]
    assert list(sequence.frames.rgb_names) == [f"v{n:04d}.jpg" for n in kept]
    assert list(sequence.frames.aux_names) == [f"i{n + offset:04d}.jpg" for n in kept]
    np.testing.assert_array_equal(sequence.boxes[:, 0], [n - rgb[0] for n in kept])
    folder.parent.rename(tmp_path / "testingset")  # where all colour images count
    assert fix_index("lasher", tmp_path) == 1
    sequence = open_dataset("lasher", tmp_path, "test")[0]
    assert list(sequence.frames.rgb_names) == [f"v{n:04d}.jpg" for n in rgb]
    partners = [f"i{n + offset:04d}.jpg" if n in kept else "" for n in rgb]
    assert list(sequence.frames.aux_names) == partners
    np.testing.assert_array_equal(sequence.boxes[:, 0], [n - rgb[0] for n in rgb])


@pytest.mark.parametrize(
    ("rgb", "aux", "rows"),
    [
        ([2, 3, 4, 5, 6], [1, 2, 3, 4, 5, 6], [1, 2, 3, 4, 5]),  # the other camera has the first
        ([1, 2, 3, 4], [1, 2, 3, 4], [0, 1, 2, 3]),  # the last ones are missing
        ([2, 3, 4, 5], [2, 3, 4, 5], None),  # which end?
        ([1, 2, 4, 5], [1, 2, 4, 5], None),
    ],
)
def test_rows_are_those_of_the_frames_or_none(tmp_path, copies, caplog, rgb, aux, rows):
    folder = tmp_path / "trainingset" / "boy"
    copies.write_images(folder / "visible", [f"{n:04d}.jpg" for n in rgb])
    copies.write_images(folder / "infrared", [f"{n:04d}.jpg" for n in aux])
    copies.write_rows(folder / "visible.txt", [(t, 2, 12, 9) for t in range(6)])
    fix_index("lasher", tmp_path, "train")
    if rows is None:
        assert "visible.txt has 6 rows for 4 images, whose numbers do not say" in caplog.text
        return
    sequence = open_dataset("lasher", tmp_path, "train")[0]
    assert sequence.boxes[:, 0].tolist() == rows
    assert list(sequence.frames.rgb_names) == list(sequence.frames.aux_names)


@pytest.mark.parametrize("indexed", [False, True])
def test_boxes_may_begin_with_the_first_visible_frame(tmp_path, copies, indexed):
    folder = tmp_path / "test" / "cat"
    names = [f"frame{n:04d}.png" for n in range(6)]
    for part in ("cat_aps", "cat_dvs"):
        copies.write_images(folder / part, names)
    copies.write_rows(folder / "groundtruth.txt", [(5 * n, 2, 12, 9) for n in range(2, 6)])
    (folder / "absent.txt").write_text("0\n0\n1\n1\n1\n1\n")  # 1: can be seen
    if indexed:
        assert fix_index("coesot", tmp_path) == 0
    sequence = open_dataset("coesot", tmp_path, "test")[0]
    assert len(sequence) == 6
    np.testing.assert_array_equal(sequence.boxes[:, 0], [np.nan, np.nan, 10, 15, 20, 25])


def test_an_index_says_whom_it_leaves_out(write_copy, caplog):
    root = write_copy("depthtrack")
    (root / "test" / "list.txt").write_text("s2\ns10\n")
    later = (root / "test" / "s10").rename(root / "s10")
    assert fix_index("depthtrack", root) == 1
    later.rename(root / "test" / "s10")  # extracted since
    caplog.clear()
    assert open_dataset("depthtrack", root, "test").names == ["s2"]
    assert "leaves out 1 of 2 sequences (s10); if these have been mended since" in caplog.text


def test_file_names_need_not_be_utf8(write_copy):
    root = write_copy("depthtrack")
    for file in (root / "test" / "s2" / "color").iterdir():
        os.rename(bytes(file), os.fsencode(file).replace(b"color/0", b"color/\xb5"))
    assert fix_index("depthtrack", root) == 0
    frames = open_dataset("depthtrack", root, "test")[0].frames
    assert frames.rgb_names[0] == "\udcb50000001.jpg" and frames.rgb(0).shape == (30, 40, 3)


@pytest.mark.parametrize("first", [True, False])
def test_test_frames_without_partner_are_tracked_by_rgb(write_copy, caplog, first):
    root = write_copy("depthtrack")
    number = 1 if first else 3
    (root / "test" / "s2" / "depth" / f"{number:08d}.png").unlink()
    with pytest.raises(UserError, match="4 colour images in color/ but 3 depth images"):
        open_dataset("depthtrack", root, "test")[0]
    fix_index("depthtrack", root)
    sequence = open_dataset("depthtrack", root, "test")[0]
    assert sequence.frames.aux_path(number - 1) is None
    read = [read_frame(sequence, t)[1] for t in range(4)]
    assert [t + 1 for t in range(4) if "aux" not in read[t]] == [number]
    assert f"{number:08d}.jpg: no image in" in caplog.text and "RGB image alone" in caplog.text
    (outcome,) = track_many([sequence], from_checkpoint(BUNDLED, "cpu"), 1)
    assert np.isfinite(outcome[1].boxes).all()


def test_pairs_from_a_test_part_are_of_frames_with_a_partner(write_copy):
    root = write_copy("depthtrack")
    (root / "test/s2/depth/00000003.png").unlink()
    fix_index("depthtrack", root)
    data = open_dataset("depthtrack", root, "test")
    pairs = PairDataset([data], None, network_spec("two_branch_tiny"), 40)
    assert {tuple(pairs[i]["search"].shape[:1]) for i in range(40)} == {(6,)}


def test_a_test_sequence_without_any_auxiliary_image_is_tracked_by_rgb(write_copy):
    root = write_copy("depthtrack")
    for file in (root / "test/s2/depth").iterdir():
        file.unlink()
    fix_index("depthtrack", root)
    sequence = open_dataset("depthtrack", root, "test")[0]
    assert sequence.name == "s2" and sequence.frames.aux_names == [""] * 4
    assert all("aux" not in read_frame(sequence, t)[1] for t in range(4))


@pytest.mark.parametrize("name", ["depthtrack", "lasher", "rgbt234", "visevent", "otb"])
def test_the_index_gives_what_the_folders_give(write_copy, name):
    root = write_copy(name)
    plain = open_dataset(name, root, "test")
    fix_index(name, root)
    indexed = open_dataset(name, root, "test")
    assert type(indexed) is not type(plain) and indexed.names == plain.names
    for one, other in zip(plain, indexed, strict=True):
        np.testing.assert_array_equal(one.boxes, other.boxes)
        assert one.modality == other.modality and one.extra.keys() == other.extra.keys()
        for t in range(len(one)):
            assert one.frames.rgb_path(t).samefile(other.frames.rgb_path(t))
            np.testing.assert_array_equal(one.frames.rgb(t), other.frames.rgb(t))


@pytest.mark.parametrize("name", ["depthtrack", "otb"])
def test_the_index_keeps_attributes_and_serves_a_single_sequence(copies, tmp_path, name):
    folder = tmp_path / copies.FOLDERS.get(name, ".") / "s1"
    copies.WRITERS[name][0](folder)
    for tag, values in (("blur", "0\n1\n0\n0\n"), ("dark", "0\n" * 4), ("fast", "1\n" * 4)):
        (folder / f"{tag}.tag").write_text(values)
    (folder / "sequence").write_text("fps=30\nname = s1\n")
    plain = open_dataset(name, tmp_path, "test")[0]
    fix_index(name, tmp_path)
    indexed = open_dataset(name, tmp_path, "test")[0]
    assert plain.extra == indexed.extra
    assert plain.extra["attributes"] == ("blur", "fast")
    assert plain.extra["properties"] == {"fps": "30", "name": "s1"}
    np.testing.assert_array_equal(plain.boxes, indexed.boxes)


def test_the_index_survives_a_move_and_needs_no_listing(write_copy, tmp_path, monkeypatch):
    root = write_copy("depthtrack")
    fix_index("depthtrack", root)
    moved = root.rename(tmp_path / "elsewhere")
    monkeypatch.setattr("ltr_ext.dataset.base.image_names", None)  # would fail when called
    data = open_dataset("depthtrack", moved, "test")
    assert data[1].frames.rgb(0).shape == (30, 40, 3)


def test_an_index_of_other_sequences_is_not_used(write_copy, copies, caplog):
    root = write_copy("depthtrack")
    fix_index("depthtrack", root)
    copies.write_rgbd(root / "test" / "s3")
    assert open_dataset("depthtrack", root, "test").names == ["s2", "s3", "s10"]
    assert "out of date" in caplog.text


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 half", b"\x93NUMPY"])
def test_a_damaged_index_is_an_error(write_copy, content):
    root = write_copy("depthtrack")
    fix_index("depthtrack", root)
    index_path(root, "depthtrack", "test").write_bytes(content)
    with pytest.raises(UserError, match="not a usable index"):
        open_dataset("depthtrack", root, "test")
