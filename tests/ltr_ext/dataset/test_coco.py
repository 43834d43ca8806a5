"""Objects of pictures as sequences of one frame."""

import json

import numpy as np
import pytest

from ltr_ext.data.sampler import PairDataset
from ltr_ext.dataset import files, registry
from ltr_ext.dataset.check_coco import check_coco
from ltr_ext.dataset.registry import open_dataset
from ltr_ext.models.network import NetworkSpec
from srft_plugin.cli import main
from srft_plugin.errors import UserError


@pytest.fixture
def root(tmp_path, copies):
    copies.write_images(tmp_path / "train2017", ["000000000009.jpg", "000000000025.jpg"])
    objects = [
        {"id": 7, "image_id": 25, "bbox": [3, 4, 60, 70], "iscrowd": 0},
        {"id": 8, "image_id": 25, "bbox": [3, 4, 60, 70], "iscrowd": 1},
        {"id": 9, "image_id": 9, "bbox": [3, 4, 10, 70], "iscrowd": 0},
        {"id": 10, "image_id": 9, "bbox": [1.5, 2, 50, 50], "iscrowd": 0},
    ]
    size = {"width": 40, "height": 30}
    images = [{"id": n, "file_name": f"{n:012d}.jpg", **size} for n in (9, 25)]
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "instances_train2017.json").write_text(
        json.dumps({"images": images, "annotations": objects})
    )
    return tmp_path


def test_large_single_objects_become_sequences(root):
    data = open_dataset("coco", root, "train")
    assert [data[0].name, data[1].name] == ["7", "10"] and len(data) == 2
    np.testing.assert_array_equal(data[1].boxes, [[1.5, 2, 50, 50]])
    assert data[0].frames.rgb_path(0).name == "000000000025.jpg"
    assert data[0].frames.rgb(0).shape == (30, 40, 3) and data[0].modality is None


def test_pictures_are_held_out_by_their_names(root, monkeypatch):
    monkeypatch.setattr(registry, "is_held_out", lambda name: name == "000000000025.jpg")
    parts = [open_dataset("coco", root, part) for part in ("train_part", "val_part")]
    assert [[sequence.name for sequence in data] for data in parts] == [["10"], ["7"]]


def test_pairs_come_from_one_picture(root):
    spec = NetworkSpec(name="test", template_size=32, search_size=64, in_channels=6)
    item = PairDataset([open_dataset("coco", root, "train")], None, spec, 4)[0]
    assert item["search"].shape == (6, 64, 64)


def test_a_picture_is_read_once_for_both_sides_of_a_pair(root, monkeypatch):
    read = []
    decode = files.decode_top
    monkeypatch.setattr(files, "decode_top", lambda *args: read.append(args[0]) or decode(*args))
    spec = NetworkSpec(name="test", template_size=32, search_size=64, in_channels=6)
    PairDataset([open_dataset("coco", root, "train")], None, spec, 4)[0]
    assert len(read) == 1


def test_what_is_not_coco_is_an_error(root):
    with pytest.raises(UserError, match="instances_val2017.json"):
        open_dataset("coco", root, "val")
    file = root / "annotations" / "instances_train2017.json"
    short = {"id": 1, "image_id": 9, "bbox": [1, 2, 60]}
    odd = json.dumps({"images": [{"id": 9, "file_name": "9.jpg"}], "annotations": [short]})
    for content in ("{", "[]", '{"images": [], "annotations": [{}]}', odd):
        file.write_text(content)
        with pytest.raises(UserError, match="not a COCO annotation file"):
            open_dataset("coco", root, "train")
    file.write_text('{"images": [], "annotations": []}')
    with pytest.raises(UserError, match="no object"):
        open_dataset("coco", root, "train")


def test_a_whole_part_is_counted(root):
    (report,) = check_coco(root)
    assert report.findings == [] and report.sequences == 2 and report.official == 118_287


def test_planted_defects_are_found(root, copies):
    pictures, file = root / "train2017", root / "annotations" / "instances_train2017.json"
    copies.write_images(pictures, [f"{n:012d}.jpg" for n in (30, 31, 32)])
    table = json.loads(file.read_text())
    size = {"width": 40, "height": 30}
    table["images"] += [{"id": n, "file_name": f"{n:012d}.jpg", **size} for n in (30, 31, 32, 33)]
    table["images"][0]["width"] = 41
    table["annotations"] += [
        {"id": 70, "image_id": 99, "bbox": [1, 1, 60, 60]},
        {"id": 71, "image_id": 9, "bbox": [200, 1, 60, 60]},
        {"id": 72, "image_id": 9, "bbox": [1, 1, -60, 60]},
    ]
    file.write_text(json.dumps(table))
    damaged = pictures / "000000000030.jpg"
    damaged.write_bytes(damaged.read_bytes()[:-30])
    (pictures / "000000000031.jpg").write_text("<html>quota exceeded</html>" * 9)
    (report,) = check_coco(root, ["train"], samples=-1)
    found = {(item.sequence, item.problem.removeprefix(str(pictures))) for item in report.findings}
    assert found == {
        ("train2017", "1 pictures are missing: 000000000033.jpg"),
        (file.name, "no such picture: annotations 70"),
        (file.name, "box outside the picture: annotations 71"),
        (file.name, "not a box: annotations 72"),
        ("000000000030.jpg", "truncated or unreadable"),
        ("000000000031.jpg", "/000000000031.jpg: not an image that OpenCV can read"),
        ("000000000009.jpg", "40x30 pixels, the annotation says 41x30"),
    }
    assert all(item.remedy for item in report.findings)


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"images": []}', '{"images": 3, "annotations": 1}']
)
def test_a_damaged_annotation_file_is_a_finding(root, content):
    (root / "annotations" / "instances_train2017.json").write_text(content)
    (report,) = check_coco(root)
    assert "not a COCO annotation file" in report.findings[0].problem


def test_check_coco_from_the_command_line(root, capsys):
    assert main(["data", "check", "coco", str(root)]) == 0
    assert (
        "coco train: 2 sequences (the official distribution has 118287)" in capsys.readouterr().out
    )
    assert main(["data", "check", "coco", str(root), "--fix-index"]) == 2
    assert main(["data", "check", "coco", str(root), "--split", "val"]) == 2
    assert "instances_val2017.json" in capsys.readouterr().err
