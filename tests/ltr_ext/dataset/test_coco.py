"""Objects of pictures as sequences of one frame."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from ltr_ext.data.sampler import PairDataset
from ltr_ext.dataset.registry import open_dataset
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
    images = [{"id": n, "file_name": f"{n:012d}.jpg"} for n in (9, 25)]
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


def test_pairs_come_from_one_picture(root):
    @dataclass
    class Spec:
        template_size: int = 32
        search_size: int = 64
        template_factor: float = 2.0
        search_factor: float = 4.0
        in_channels: int = 6

    item = PairDataset([open_dataset("coco", root, "train")], None, Spec(), 4)[0]
    assert item["search"].shape == (6, 64, 64)


def test_what_is_not_coco_is_an_error(root):
    with pytest.raises(UserError, match="instances_val2017.json"):
        open_dataset("coco", root, "val")
    file = root / "annotations" / "instances_train2017.json"
    for content in ("{", "[]", '{"images": [], "annotations": [{}]}'):
        file.write_text(content)
        with pytest.raises(UserError, match="not a COCO annotation file"):
            open_dataset("coco", root, "train")
    file.write_text('{"images": [], "annotations": []}')
    with pytest.raises(UserError, match="no object"):
        open_dataset("coco", root, "train")
