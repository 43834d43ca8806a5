"""Tiny copies of the distributions, each written from its own description."""

import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

LENGTH = 4
BOXES = [(5 + t, 6 + t, 12, 9) for t in range(LENGTH)]


def write_images(folder: Path, names: list[str], depth: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for t, name in enumerate(names):
        image = np.full((30, 40, 3), 20 * (t + 1), np.uint8)
        if depth:
            image = np.full((30, 40), 1000 * (t + 1), np.uint16)
            image[:, 20:] += 500
        assert cv2.imwrite(str(folder / name), image)


def write_rows(path: Path, rows=BOXES, separator: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(separator.join(map(str, row)) + "\n" for row in rows))


def numbered(pattern: str, start: int = 1, count: int = LENGTH) -> list[str]:
    return [pattern % number for number in range(start, start + count)]


def write_rgbd(folder: Path) -> None:
    write_images(folder / "color", numbered("%08d.jpg"))
    write_images(folder / "depth", numbered("%08d.png"), depth=True)
    write_rows(folder / "groundtruth.txt")


def write_rgbt(folder: Path) -> None:
    """Names as LasHeR has them: different in the two folders and of growing length."""
    write_images(folder / "visible", [f"v{n}.jpg" for n in (9, 25, 100, 125)])
    write_images(folder / "infrared", [f"{n:06d}i.jpg" for n in range(LENGTH)])
    write_rows(folder / "visible.txt")
    write_rows(folder / "infrared.txt", [(x + 1, y, w, h) for x, y, w, h in BOXES])
    write_rows(folder / "init.txt", separator="\t")


def write_visevent(folder: Path) -> None:
    write_images(folder / "vis_imgs", numbered("frame%04d.bmp", 0))
    write_images(folder / "event_imgs", numbered("frame%04d.bmp", 0))
    write_rows(folder / "groundtruth.txt")
    (folder / "absent_label.txt").write_text("1\n0\n1\n1\n")  # 1: can be seen


def write_coesot(folder: Path) -> None:
    write_images(folder / f"{folder.name}_aps", numbered("frame%04d.png", 0))
    write_images(folder / f"{folder.name}_dvs", numbered("frame%04d.png", 0))
    write_rows(folder / "groundtruth.txt")
    (folder / "absent.txt").write_text("1\n1\n0\n1\n")


def write_fe108(folder: Path) -> None:
    write_images(folder / "img", numbered("%04d.jpg"))
    write_images(folder / "evimg", numbered("%04d.jpg"))
    write_rows(folder / "groundtruth_rect.txt")


def write_lasot(folder: Path) -> None:
    write_images(folder / "img", numbered("%08d.jpg"))
    write_rows(folder / "groundtruth.txt")
    (folder / "full_occlusion.txt").write_text("0,1,0,0")
    (folder / "out_of_view.txt").write_text("0,0,0,1")


def write_got10k(folder: Path, rows=BOXES) -> None:
    write_images(folder, numbered("%08d.jpg"))
    write_rows(folder / "groundtruth.txt", rows)
    if len(rows) > 1:
        (folder / "absence.label").write_text("0\n0\n1\n0\n")


def write_trackingnet(part: Path, name: str, rows=BOXES, numbers=(0, 1, 2, 10)) -> None:
    write_images(part / "frames" / name, [f"{n}.jpg" for n in numbers])
    write_rows(part / "anno" / f"{name}.txt", rows)


def write_otb(folder: Path, rows=None) -> None:
    write_images(folder / "img", numbered("%04d.jpg"))
    rows = rows or [(x + 1, y + 1, w, h) for x, y, w, h in BOXES]  # counted from 1
    write_rows(folder / "groundtruth_rect.txt", rows, separator="\t")


def write_gtot(folder: Path) -> None:
    """Two corners per row, of the targets in the two cameras, in any order."""
    write_images(folder / "v", numbered("%05dv.png"))
    write_images(folder / "i", numbered("%05di.png"))
    write_rows(
        folder / "groundTruth_v.txt", [(x, y, x + w, y + h) for x, y, w, h in BOXES], separator=" "
    )
    write_rows(
        folder / "groundTruth_i.txt",
        [(x + w + 1, y + h, x + 1, y) for x, y, w, h in BOXES],
        separator="\t",
    )


WRITERS = {
    "depthtrack": (write_rgbd, "depth"),
    "cdtb": (write_rgbd, "depth"),
    "vot_rgbd2022": (write_rgbd, "depth"),
    "rgbt234": (write_rgbt, "thermal"),
    "lasher": (write_rgbt, "thermal"),
    "gtot": (write_gtot, "thermal"),
    "visevent": (write_visevent, "event"),
    "coesot": (write_coesot, "event"),
    "fe108": (write_fe108, "event"),
    "otb": (write_otb, None),
}


def write_tnl2k(folder: Path) -> None:
    write_images(folder / "imgs", numbered("%05d.png"))
    write_rows(folder / "groundtruth.txt")


def write_vot(folder: Path) -> None:
    write_images(folder / "color", numbered("%08d.jpg"))
    write_rows(folder / "groundtruth.txt")


def write_uav123(root: Path, name: str) -> None:
    write_images(root / "data_seq" / "UAV123" / name, numbered("%06d.jpg"))
    write_rows(root / "anno" / "UAV123" / f"{name}.txt")


def write_lasot_part(root: Path, name: str) -> None:
    write_lasot(root / "cat" / f"cat-{name}")
    with open(root / "testing_set.txt", "a") as file:
        file.write(f"cat-{name}\n")


RGB_PARTS = {  # data sets of the colour camera alone: part, and writer(root, name of a sequence)
    "lasot": ("test", write_lasot_part),
    "got10k": ("val", lambda root, name: write_got10k(root / "val" / name)),
    "trackingnet": (
        "train",
        lambda root, name: write_trackingnet(root / "TRAIN_0", name, numbers=range(LENGTH)),
    ),
    "tnl2k": ("test", lambda root, name: write_tnl2k(root / "test" / name)),
    "otb": ("test", lambda root, name: write_otb(root / name)),
    "uav123": ("test", write_uav123),
    "vot": ("test", lambda root, name: write_vot(root / name)),
}
FOLDERS = {
    "depthtrack": "test",
    "lasher": "testingset",
    "visevent": "test",
    "coesot": "test",
    "fe108": "test",
}


@pytest.fixture
def copies():
    """The writers above, for tests that need copies of their own."""
    return sys.modules[__name__]


@pytest.fixture
def write_copy(tmp_path):
    """write_copy(name): a root with the test part of a data set, sequences s2 and s10."""

    def write(name: str) -> Path:
        writer, _ = WRITERS[name]
        for sequence in ("s10", "s2"):
            writer(tmp_path / name / FOLDERS.get(name, ".") / sequence)
        return tmp_path / name

    return write
