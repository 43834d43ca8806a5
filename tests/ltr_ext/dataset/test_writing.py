"""Generated sequences on disk are read back as what they are copies of."""

import multiprocessing
from dataclasses import replace

import cv2
import numpy as np
import pytest

from ltr_ext.dataset.check import check_dataset
from ltr_ext.dataset.registry import open_dataset
from ltr_ext.dataset.synthetic import SceneOptions, visible_scene, write_sequences
from srft_plugin.errors import UserError

HIDDEN = SceneOptions(width=160, height=120, length=12, occluders=(3, 3), dark=1.0, failure=1.0)
LAYOUTS = {
    "depthtrack": ("train", "list.txt", "depth"),
    "lasher": ("testingset", "../testingsetList.txt", "thermal"),
    "rgbt234": ("RGBT234", "list.txt", "thermal"),
    "visevent": ("test", "../testlist.txt", "event"),
    "coesot": ("test", "testlist.txt", "event"),
    "fe108": ("train", "train.txt", "event"),
    "got10k": ("train", "list.txt", None),
}
LOSSLESS = ("visevent", "coesot")  # their files of colours


@pytest.fixture(scope="module")
def scenes():
    hidden = next(
        scene
        for scene in (visible_scene((seed,), HIDDEN) for seed in range(100))
        if 0 < np.isnan(scene.boxes).any(1).sum() < 8
    )
    return {"seq2": hidden, "seq10": visible_scene((1,), HIDDEN)}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_what_was_written_is_read_back(tmp_path, scenes, kind):
    folder, listing, modality = LAYOUTS[kind]
    write_sequences(tmp_path / folder, scenes, kind=kind, listing=listing)
    split = "train" if folder == "train" else "test"
    data = open_dataset(kind, tmp_path, split)
    assert data.names == ["seq2", "seq10"]
    for sequence, scene in zip(data, scenes.values(), strict=True):
        np.testing.assert_allclose(sequence.boxes, scene.boxes, atol=0.006)
        assert sequence.modality == modality
        assert sorted(sequence.extra["attributes"]) == sorted(scene.attributes)
        for t in (0, 11):
            loss = np.abs(sequence.frames.rgb(t).astype(int) - scene.rgb(t)).mean()
            assert loss == 0 if kind in LOSSLESS else loss < 12  # colours of JPEG are coarse
    if modality is not None:
        stored = cv2.imread(str(data[0].frames.aux_path(7)), cv2.IMREAD_UNCHANGED)
        raw = scenes["seq2"].aux(7, modality)
        stored = stored[..., ::-1] if raw.ndim == 3 else stored
        if data[0].frames.aux_path(7).suffix == ".jpg":
            assert np.abs(stored.astype(int) - raw).mean() < (4 if modality == "thermal" else 12)
        else:
            np.testing.assert_array_equal(stored, raw)
    (report,) = check_dataset(kind, tmp_path, [split], samples=-1)
    assert report.findings == [] and report.frames == 24


def test_labels_lie_beside_the_frames_in_vots_form(tmp_path, scenes):
    write_sequences(tmp_path, scenes)
    for name, frames in scenes["seq2"].tags.items():
        lines = (tmp_path / "seq2" / f"{name}.tag").read_text().split()
        assert lines == [str(int(value)) for value in frames]


def test_processes_that_write_the_same_videos_leave_them_whole(tmp_path):
    scenes = {"seq0": visible_scene((1,), HIDDEN)}
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=write_sequences, args=(tmp_path, scenes)) for _ in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert len(list((tmp_path / "seq0" / "color").iterdir())) == HIDDEN.length
    assert sorted(path.name for path in tmp_path.iterdir()) == ["list.txt", "seq0"]


def test_only_the_same_video_is_kept(tmp_path, scenes):
    write_sequences(tmp_path, scenes)
    image = next((tmp_path / "seq2").glob("*/*.jpg"))
    before = image.stat()
    write_sequences(tmp_path, scenes)
    assert image.stat() == before
    other = scenes | {"seq2": visible_scene((0, 9), replace(HIDDEN, length=9))}
    with pytest.raises(UserError, match=r"seq2/groundtruth.txt: 12 boxes .* expected the 9 boxes"):
        write_sequences(tmp_path, other)
    assert image.stat() == before
    labels = tmp_path / "seq2/aux_failure.tag"  # of a camera that is blind: no box differs
    labels.write_text("1\n" * 12)
    with pytest.raises(UserError, match=r"seq2/aux_failure.tag: 12 labels of another video"):
        write_sequences(tmp_path, scenes)


def test_the_list_keeps_earlier_sequences_and_never_loses_those_of_others(tmp_path, scenes):
    write_sequences(tmp_path, scenes)
    write_sequences(tmp_path, {"seq2": scenes["seq2"]})
    assert (tmp_path / "list.txt").read_text().split() == ["seq2", "seq10"]
    (tmp_path / "list.txt").write_text("ball01\nseq2\n")
    (tmp_path / "other" / "ball01").mkdir(parents=True)  # one without a list
    for folder in (tmp_path, tmp_path / "other"):
        with pytest.raises(UserError, match=r"were not generated \(ball01\)"):
            write_sequences(folder, scenes)
    assert (tmp_path / "list.txt").read_text() == "ball01\nseq2\n"
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["ball01"]


def test_unknown_layouts_and_full_disks_are_errors(tmp_path, scenes, monkeypatch):
    with pytest.raises(UserError, match="did you mean 'lasher'"):
        write_sequences(tmp_path, scenes, kind="lashr")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file: cannot be written"):
        write_sequences(tmp_path / "file", scenes)
    monkeypatch.setattr(cv2, "imwrite", lambda *_: False)
    with pytest.raises(UserError, match="is the disk full"):
        write_sequences(tmp_path, scenes)
    assert not (tmp_path / "seq2").exists()
