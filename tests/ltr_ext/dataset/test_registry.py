"""Every distribution is read from a tiny copy of itself."""

from pathlib import Path

import numpy as np
import pytest

from ltr_ext.dataset.registry import is_held_out, open_dataset
from ltr_ext.dataset.training_sets import open_training_sets
from srft_plugin.errors import UserError

NAMES = (
    *("depthtrack", "cdtb", "vot_rgbd2022", "lasher", "rgbt234", "gtot"),
    *("visevent", "coesot", "fe108", "otb"),
)


@pytest.mark.parametrize("name", NAMES)
def test_a_copy_reads_back(copies, write_copy, name):
    data = open_dataset(name, write_copy(name), "test")
    assert data.names == ["s2", "s10"]
    for sequence in (data[0], data[1]):
        assert sequence.modality == copies.WRITERS[name][1]
        assert len(sequence) == len(sequence.frames) == copies.LENGTH
        np.testing.assert_array_equal(sequence.boxes[sequence.visible][0], copies.BOXES[0])
        for t in range(copies.LENGTH):  # frames in their order, partners together
            assert abs(int(sequence.frames.rgb(t).mean()) - 20 * (t + 1)) <= 1
            aux = sequence.frames.aux(t)
            if sequence.modality in ("thermal", "event"):
                assert abs(int(aux.mean()) - 20 * (t + 1)) <= 1
            else:
                assert (aux is None) == (sequence.modality is None)


@pytest.mark.parametrize(
    ("name", "visible"), [("visevent", [1, 0, 1, 1]), ("coesot", [1, 1, 0, 1])]
)
def test_one_in_the_label_file_of_event_data_says_visible(write_copy, name, visible):
    sequence = open_dataset(name, write_copy(name), "test")[0]
    np.testing.assert_array_equal(sequence.visible, np.array(visible, bool))


def test_zero_in_the_label_files_of_rgb_data_says_visible(copies, tmp_path):
    copies.write_lasot(tmp_path / "cat" / "cat-1")
    (tmp_path / "testing_set.txt").write_text("cat-1\n")
    sequence = open_dataset("lasot", tmp_path, "test")[0]
    np.testing.assert_array_equal(sequence.visible, [True, False, True, False])
    copies.write_got10k(tmp_path / "val" / "GOT-10k_Val_000001")
    sequence = open_dataset("got10k", tmp_path, "val")[0]
    np.testing.assert_array_equal(sequence.visible, [True, True, False, True])


@pytest.mark.parametrize("name", ["rgbt234", "gtot"])
def test_both_ground_truths_of_rgbt_are_there(write_copy, name):
    sequence = open_dataset(name, write_copy(name), "test")[0]
    np.testing.assert_array_equal(sequence.extra["infrared"], sequence.boxes + [1, 0, 0, 0])


def test_a_vot_workspace_says_where_its_channels_are(copies, tmp_path):
    folder = tmp_path / "ball"
    copies.write_rgbd(folder)
    (folder / "color").rename(folder / "rgb")
    (folder / "depth").rename(folder / "range")
    lines = "channels.color=rgb/%08d.jpg\nchannels.depth=range/%08d.png\n\nfps=15\n"
    (folder / "sequence").write_text(lines)
    sequence = open_dataset("cdtb", tmp_path, "test")[0]
    assert sequence.frames.aux_path(1) == folder / "range" / "00000002.png"
    assert sequence.extra["properties"]["fps"] == "15"
    (folder / "sequence").write_text("fps=15\nchannels\n")
    with pytest.raises(UserError, match="sequence, line 2: expected key=value"):
        open_dataset("cdtb", tmp_path, "test")[0]


def test_frames_are_found_without_a_pattern_that_could_match_another(copies, tmp_path):
    copies.write_rgbt(tmp_path / "trainingset" / "boy")
    (tmp_path / "trainingsetList.txt").write_text("boy\n")
    frames = open_dataset("lasher", tmp_path, "train")[0].frames
    assert list(frames.rgb_names) == ["v9.jpg", "v25.jpg", "v100.jpg", "v125.jpg"]
    assert frames.rgb_path(1).name == "v25.jpg"  # for a glob *25.jpg v125.jpg is one, too
    assert frames.aux_path(1).name == "000001i.jpg"


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("TrainingSet/trainingset", "TestingSet/testingset"),
        ("TrainingSet/Trainingset", "TestingSet/testingset"),
    ],
)
def test_lasher_as_its_archives_unpack(copies, tmp_path, train, test):
    copies.write_rgbt(tmp_path / train / "boy")
    copies.write_rgbt(tmp_path / test / "girl")
    (tmp_path / "trainingsetList.txt").write_text("boy\n")
    (tmp_path / "testingsetList.txt").write_text("girl\n")
    assert open_dataset("lasher", tmp_path, "train").names == ["boy"]
    data = open_dataset("lasher", tmp_path, "test")
    assert data.names == ["girl"] and len(data[0]) == copies.LENGTH


def test_the_surplus_rows_of_one_sequence_are_known(copies, tmp_path):
    """They are left out unless an image is missing; those of other sequences are an error."""
    for name in ("toy07_indoor_320", "toy09"):
        copies.write_rgbd(tmp_path / "train" / name)
        copies.write_rows(
            tmp_path / "train" / name / "groundtruth.txt", [*copies.BOXES, (1, 1, 9, 9)]
        )
    known, other = range(2)
    sequence = open_dataset("depthtrack", tmp_path, "train")[known]
    assert len(sequence) == len(sequence.frames) == len(sequence.boxes) == copies.LENGTH
    with pytest.raises(UserError, match="5 rows for 4 frames"):
        open_dataset("depthtrack", tmp_path, "train")[other]
    for channel, suffix in (("color", "jpg"), ("depth", "png")):
        (tmp_path / "train" / "toy07_indoor_320" / channel / f"00000002.{suffix}").unlink()
    with pytest.raises(UserError, match="5 rows for 3 frames"):
        open_dataset("depthtrack", tmp_path, "train")[known]


def test_labels_may_begin_before_the_boxes(copies, tmp_path):
    """Where all of the surplus says absent, and not otherwise."""
    copies.write_visevent(tmp_path / "test" / "cat")
    labels = tmp_path / "test" / "cat" / "absent_label.txt"
    labels.write_text("0\n0\n1\n0\n1\n1\n")
    visible = open_dataset("visevent", tmp_path, "test")[0].visible
    np.testing.assert_array_equal(visible, [True, False, True, True])
    labels.write_text("0\n1\n1\n0\n1\n1\n")
    with pytest.raises(UserError, match="6 labels for 4 boxes"):
        open_dataset("visevent", tmp_path, "test")[0]


def test_a_box_of_zeros_is_absent(copies, tmp_path):
    copies.write_rgbt(tmp_path / "trainingset" / "boy")
    copies.write_rows(
        tmp_path / "trainingset" / "boy" / "visible.txt", [*copies.BOXES[:3], (0, 0, 0, 0)]
    )
    sequence = open_dataset("lasher", tmp_path, "train")[0]
    np.testing.assert_array_equal(sequence.visible, [True, True, True, False])


@pytest.mark.parametrize(
    ("name", "part", "annotation", "least"),
    [
        ("depthtrack", "train", "groundtruth.txt", 2),
        ("lasher", "trainingset", "visible.txt", 2),
        ("visevent", "train", "groundtruth.txt", 1),
        ("coesot", "train", "groundtruth.txt", 1),
        ("fe108", "train", "groundtruth_rect.txt", 1),
    ],
)
def test_the_smallest_boxes_are_not_learned_from_but_scored(
    copies, write_copy, name, part, annotation, least
):
    """In the test parts only the label files say that a box does not count."""
    root = write_copy(name)
    copies.WRITERS[name][0](root / part / "s2")
    rows = [(5, 6, least, 9), (5, 6, 9, least), (5, 6, least + 0.5, least + 0.5), (5, 6, 9, 9)]
    for folder in (part, copies.FOLDERS[name]):
        copies.write_rows(root / folder / "s2" / annotation, rows)
        for labels in ("absent_label.txt", "absent.txt"):
            if (root / folder / "s2" / labels).is_file():
                (root / folder / "s2" / labels).write_text("1\n1\n1\n0\n")
    last = name not in ("visevent", "coesot")  # no label says that the last one is absent
    train, test = (open_dataset(name, root, split)[0] for split in ("train", "test"))
    np.testing.assert_array_equal(train.visible, [False, False, True, last])
    np.testing.assert_array_equal(test.visible, [True, True, True, last])


def test_coesot_rendered_and_named_by_content(copies, tmp_path):
    for rgb, aux in (("color_frames", "event_frames"), ("img", "evimg")):
        folder = tmp_path / rgb / "Training Subset" / "dog"
        copies.write_images(folder / rgb, copies.numbered("%04d.png"))
        copies.write_images(folder / aux, copies.numbered("%04d.png"))
        copies.write_rows(folder / "groundtruth.txt")
        sequence = open_dataset("coesot", tmp_path / rgb, "train")[0]
        assert sequence.frames.aux_folder.name == aux


def test_lists_divide_parts_that_lie_side_by_side(tmp_path):
    names = [f"seq{n}" for n in range(77)]
    for name in names:
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=r"expected train.txt or test.txt"):
        open_dataset("fe108", tmp_path, "train")
    (tmp_path / "test.txt").write_text("seq5\n")
    assert open_dataset("fe108", tmp_path, "test").names == ["seq5"]
    assert open_dataset("fe108", tmp_path, "train").names == names[:5] + names[6:]


def test_lasot_by_class(copies, tmp_path):
    for name in ("cat-2", "cat-10", "dog-1"):
        copies.write_lasot(tmp_path / name.split("-")[0] / name)
    (tmp_path / "testing_set.txt").write_text("cat-10\n")
    assert open_dataset("lasot", tmp_path, "test").names == ["cat-10"]
    data = open_dataset("lasot", tmp_path, "train")
    assert data.names == ["cat-2", "dog-1"]
    assert len(data[1]) == copies.LENGTH
    (tmp_path / "zebra").mkdir()  # whose sequences have not been extracted
    data = open_dataset("lasot", tmp_path, "train")
    assert data.names == ["cat-2", "dog-1", "zebra"] and len(data[0]) == copies.LENGTH


def test_trackingnet_over_its_parts(copies, tmp_path, monkeypatch):
    glob = Path.glob
    copies.write_trackingnet(tmp_path / "TRAIN_10", "v")
    copies.write_trackingnet(tmp_path / "TRAIN_2", "u")
    copies.write_trackingnet(tmp_path / "TEST", "t", copies.BOXES[:1])
    data = open_dataset("trackingnet", tmp_path, "train")
    assert data.names == ["u", "v"]
    monkeypatch.setattr(Path, "glob", lambda *of: sorted(glob(*of), reverse=True))
    assert open_dataset("trackingnet", tmp_path, "train").names == ["u", "v"]  # in any file system
    assert list(data[0].frames.rgb_names) == ["0.jpg", "1.jpg", "2.jpg", "10.jpg"]
    test = open_dataset("trackingnet", tmp_path, "test")[0]
    np.testing.assert_array_equal(test.visible, [True, False, False, False])


def test_got10k_test_has_the_first_box_only_and_train_may_not(copies, tmp_path):
    copies.write_got10k(tmp_path / "test" / "GOT-10k_Test_000001", copies.BOXES[:1])
    copies.write_got10k(tmp_path / "train" / "GOT-10k_Train_000001", copies.BOXES[:1])
    sequence = open_dataset("got10k", tmp_path, "test")[0]
    assert len(sequence) == copies.LENGTH and sequence.visible.sum() == 1
    with pytest.raises(UserError, match="1 rows for 4 frames"):
        open_dataset("got10k", tmp_path, "train")[0]


def test_otb_two_targets_a_late_start_and_a_tail(copies, tmp_path):
    copies.write_otb(tmp_path / "Jogging")
    (tmp_path / "Jogging" / "groundtruth_rect.txt").unlink()
    for n in (1, 2):
        rows = [(x + n, y + 1, w, h) for x, y, w, h in copies.BOXES]
        copies.write_rows(tmp_path / "Jogging" / f"groundtruth_rect.{n}.txt", rows)
    copies.write_images(tmp_path / "David" / "img", copies.numbered("%04d.jpg", 298, 6))
    copies.write_rows(tmp_path / "David" / "groundtruth_rect.txt")
    copies.write_otb(tmp_path / "Diving", copies.BOXES[:2])
    data = open_dataset("otb", tmp_path, "test")
    assert data.names == ["David", "Diving", "Jogging-1", "Jogging-2"]
    assert data[0].frames.rgb_names[0] == "0300.jpg"
    assert len(data[1]) == len(data[1].frames) == 2
    assert data[3].boxes[0, 0] - data[2].boxes[0, 0] == 1


def test_missing_images_of_otb_are_an_error(copies, tmp_path):
    """What may be left out there are images behind the last row, not rows."""
    copies.write_otb(tmp_path / "Deer", [*copies.BOXES, (1, 1, 9, 9)])
    with pytest.raises(UserError, match="5 rows for 4 frames"):
        open_dataset("otb", tmp_path, "test")[0]


def test_otb_knows_the_second_target_of_human4_alone(copies, tmp_path):
    copies.write_otb(tmp_path / "Human4")
    (tmp_path / "Human4" / "groundtruth_rect.txt").rename(
        tmp_path / "Human4" / "groundtruth_rect.2.txt"
    )
    (tmp_path / "Human4" / "groundtruth_rect.1.txt").touch()
    data = open_dataset("otb", tmp_path, "test")
    assert data.names == ["Human4-2"] and len(data[0]) == copies.LENGTH


def test_uav123_cuts_videos_as_its_toolkit_says(copies, tmp_path):
    names = [*copies.numbered("%06d.jpg", 1, 6), "cover.jpg"]
    copies.write_images(tmp_path / "data_seq" / "UAV123" / "bird1", names)
    for name, rows in (("bird1_1", copies.BOXES[:2]), ("bird1_2", copies.BOXES[:3])):
        copies.write_rows(tmp_path / "anno" / "UAV123" / f"{name}.txt", rows)
    path, slow = (rf"D:\UAV123\data_seq\{s}\bird1" + "\\" for s in ("UAV123", "UAV123_10fps"))
    (tmp_path / "configSeqs.m").write_text(
        f"struct('name','bird1_1','path','{path}','startFrame',1,'endFrame',2,'nz',6),...\n"
        f"struct('name','bird1_1','path','{path}','startFrame',1,'endFrame',2,'nz',6),...\n"
        f"struct('name','bird1_2','path','{slow}','startFrame',2,'endFrame',3,'nz',6),...\n"
        f"struct('name','bird1_2','path','{path}','startFrame',4,'endFrame',6,'nz',6),...\n"
        f"struct('name','bird1','path','{path}','startFrame',1,'endFrame',6,'nz',6);\n"
    )
    data = open_dataset("uav123", tmp_path, "test")
    assert data.names == ["bird1_1", "bird1_2"]
    assert list(data[1].frames.rgb_names) == ["000004.jpg", "000005.jpg", "000006.jpg"]


def test_vot_polygons(copies, tmp_path):
    copies.write_images(tmp_path / "ants" / "color", copies.numbered("%08d.jpg"))
    copies.write_rows(
        tmp_path / "ants" / "groundtruth.txt", [(1, 2, 4, 2, 4, 6, 1, 6)] * copies.LENGTH
    )
    (tmp_path / "list.txt").write_text("ants\n")
    np.testing.assert_array_equal(open_dataset("vot", tmp_path, "test")[0].boxes[0], [1, 2, 3, 4])


def test_the_held_out_part_is_the_rest_of_the_training_part(tmp_path):
    names = [f"seq{n}" for n in range(60)]
    for name in names:
        (tmp_path / "train" / name).mkdir(parents=True)
    held_out = open_dataset("depthtrack", tmp_path, "val_part").names
    rest = open_dataset("depthtrack", tmp_path, "train_part").names
    assert sorted(held_out + rest) == sorted(names)
    assert 0 < len(held_out) < 10 and all(map(is_held_out, held_out))


def test_a_recipe_names_a_part_of_a_set(tmp_path):
    for n in range(60):
        (tmp_path / "train" / f"seq{n}").mkdir(parents=True)
    entries = ("depthtrack/train_part", "depthtrack/val_part", "depthtrack")
    rest, held_out, both = open_training_sets(tuple(f"{e}:{tmp_path}" for e in entries))
    assert sorted(rest.names + held_out.names) == sorted(both.names) and len(both) == 60
    assert all(map(is_held_out, held_out.names))
    with pytest.raises(UserError, match="unknown part of depthtrack 'vall'.*Known: train"):
        open_training_sets((f"depthtrack/vall:{tmp_path}",))
    with pytest.raises(UserError, match="synthetic_rgbd/val"):  # generated sets have none
        open_training_sets(("synthetic_rgbd/val",))


def test_a_listed_sequence_that_is_not_there_is_an_error(copies, tmp_path):
    copies.write_rgbd(tmp_path / "one")
    (tmp_path / "list.txt").write_text("one\ntwo\n")
    data = open_dataset("cdtb", tmp_path, "test")
    with pytest.raises(UserError, match="two: no such folder"):
        data[1]


def test_labels_that_do_not_fit_the_frames_are_an_error(copies, tmp_path):
    copies.write_visevent(tmp_path / "test" / "bird")
    (tmp_path / "test" / "bird" / "absent_label.txt").write_text("1\n1\n")
    with pytest.raises(UserError, match=r"absent_label\.txt: 2 labels for 4"):
        open_dataset("visevent", tmp_path, "test")[0]


@pytest.mark.parametrize(
    ("folder", "name", "shape"), [("RGBE", "fe108", (260, 346, 3)), ("RGB", "otb", (240, 360, 3))]
)
def test_real_sequences(shared, folder, name, shape):
    sequence = open_dataset(name, shared / "data" / folder, "test")[0]
    assert sequence.frames.rgb(0).shape == shape and sequence.visible.mean() > 0.9
