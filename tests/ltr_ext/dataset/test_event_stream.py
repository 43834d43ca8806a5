"""Reading recordings, and rendering the event images that a data set lacks."""

import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest

from ltr_ext.data.events import Events, render_events
from ltr_ext.data.io import read_rgb
from ltr_ext.dataset import event_stream
from ltr_ext.dataset.event_stream import EventStream, read_stream, render_sequence
from ltr_ext.dataset.registry import open_dataset
from srft_plugin.cli import main
from srft_plugin.errors import UserError

# tiny.aedat4 (lz4): six events on a sensor of 6x4 pixels, frames at 2000 and 4000 us;
# tiny_zstd.aedat4: the same events
TINY = Path(__file__).with_name("tiny.aedat4")
T = [1000, 1500, 2000, 2500, 3000, 3600]
X, Y = [0, 1, 1, 5, 4, 0], [0, 2, 2, 3, 1, 3]
ON = [True, False, True, False, True, False]


def assert_tiny(events):
    for found, expected in zip(events, (T, X, Y, ON), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("name", "times"), [("tiny", [2000, 4000]), ("tiny_zstd", [])])
def test_aedat4_with_both_compressions(name, times):
    pytest.importorskip("aedat", reason="needs the extra [events]")
    stream = read_stream(TINY.with_stem(name))
    assert_tiny(stream.events)
    assert stream.shape == (4, 6)
    np.testing.assert_array_equal(stream.frame_times, times)


@pytest.mark.parametrize("content", [b"", b"xxxx", TINY.read_bytes()[:300]])
def test_a_damaged_aedat4_is_an_error(tmp_path, content):
    pytest.importorskip("aedat", reason="needs the extra [events]")
    (tmp_path / "a.aedat4").write_bytes(content)
    with pytest.raises(UserError, match=r"a\.aedat4"):
        read_stream(tmp_path / "a.aedat4")


@pytest.mark.parametrize("group", ["", "events/"])
@pytest.mark.parametrize("off", [0, -1])
def test_hdf5(tmp_path, group, off):
    h5py = pytest.importorskip("h5py", reason="needs the extra [events]")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        columns = (np.array(T) - 500, X, Y, np.where(ON, 1, off))
        for name, column in zip("txyp", columns, strict=True):
            file[group + name] = column
        file["t_offset"] = 500
    assert_tiny(read_stream(tmp_path / "a.h5").events)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["t"] = T
        file["x"], file["y"], file["p"] = X, Y, ON[1:]
    with pytest.raises(UserError, match="columns differ in length"):
        read_stream(tmp_path / "b.h5")
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["t"] = T
    with pytest.raises(UserError, match="columns t, x, y, p"):
        read_stream(tmp_path / "c.h5")


@pytest.mark.parametrize("kind", [np.uint64, np.float64, np.float32])
def test_hdf5_with_seconds_and_coordinates_of_any_type(tmp_path, kind):
    h5py = pytest.importorskip("h5py", reason="needs the extra [events]")
    seconds = kind != np.uint64
    columns = np.array(T) / 1e6 if seconds else np.array(T), X, Y, ON
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, column in zip("txyp", columns, strict=True):
            file[name] = np.asarray(column, bool if name == "p" else kind)
    events = read_stream(tmp_path / "a.h5").events
    assert_tiny(events)
    assert render_events(events, (4, 6)).shape == (4, 6, 3)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["t"] = [0.5, np.nan]
        file["x"], file["y"], file["p"] = X[:2], Y[:2], ON[:2]
    with pytest.raises(UserError, match="a time is not finite"):
        read_stream(tmp_path / "b.h5")


@pytest.mark.parametrize("separator", [" ", ",", "\t"])
@pytest.mark.parametrize("seconds", [False, True])
def test_text(tmp_path, separator, seconds):
    times = [f"{t / 1e6:.6f}" if seconds else str(t) for t in T]
    rows = zip(times, map(str, X), map(str, Y), map(str, map(int, ON)), strict=True)
    (tmp_path / "a.txt").write_text("\n".join(separator.join(row) for row in rows))
    assert_tiny(read_stream(tmp_path / "a.txt").events)


@pytest.mark.parametrize("head", ["# t x y p\n", "\n", "# made in 2024, by hand\n\n"])
def test_times_in_text_are_seconds_whatever_stands_above_them(tmp_path, head):
    (tmp_path / "a.txt").write_text(f"{head}0.5 1 2 1\n0.6 1 2 0\n")
    assert read_stream(tmp_path / "a.txt").events.t.tolist() == [500_000, 600_000]


@pytest.mark.parametrize("first", ["0", "1e-06"])
def test_times_in_text_are_seconds_however_the_first_is_written(tmp_path, first):
    (tmp_path / "a.txt").write_text(f"{first} 1 2 1\n0.000125 1 2 0\n0.5 1 2 0\n")
    assert read_stream(tmp_path / "a.txt").events.t[1:].tolist() == [125, 500_000]


def test_events_out_of_order_are_sorted(tmp_path):
    (tmp_path / "a.txt").write_text("30 1 0 1\n10 2 0 1\n20 3 0 0\n")
    np.testing.assert_array_equal(read_stream(tmp_path / "a.txt").events.x, [2, 3, 1])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "1 2 3\n", "expected rows of t x y p"),
        ("a.txt", "t x y p\n", "expected rows of t x y p"),
        ("a.txt", "\n", "the file is empty"),
        ("a.txt", "nan 1 2 1\n", "not finite"),
        ("a.bin", "x", "not an event stream"),
    ],
)
def test_wrong_files_are_errors(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=message):
        read_stream(tmp_path / name)
    with pytest.raises(UserError, match="no such file"):
        read_stream(tmp_path / "b.txt")


def test_a_library_that_is_not_installed_is_named(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(event_stream.importlib, "import_module", missing)
    remedy = r"needs aedat; install the extra: pip install -e \"\.\[events\]\""
    with pytest.raises(UserError, match=remedy):
        read_stream(TINY)


@pytest.fixture
def bare(tmp_path, copies):
    """A VisEvent sequence of two frames with a stream instead of event images."""
    folder = tmp_path / "test" / "bird"
    copies.write_images(folder / "vis_imgs", ["frame0000.bmp", "frame0001.bmp"])
    copies.write_rows(folder / "groundtruth.txt", copies.BOXES[:2])
    shutil.copy(TINY, folder / "bird.aedat4")
    return tmp_path


@pytest.fixture
def recording(monkeypatch):
    """The content of tiny.aedat4 without the library that reads it."""
    columns = (np.array(T), np.array(X), np.array(Y), np.array(ON))
    stream = EventStream(Events(*columns), (4, 6), np.array([2000, 4000]))
    monkeypatch.setattr(event_stream, "read_stream", lambda path: stream)


def test_missing_event_images_are_rendered_from_the_stream(bare, recording):
    entry = open_dataset("visevent", bare, "test").entries[0]
    with pytest.raises(UserError, match="no folder of event images.*srft data events"):
        open_dataset("visevent", bare, "test")[0]
    assert render_sequence(entry) == 2
    frames = open_dataset("visevent", bare, "test")[0].frames
    assert list(frames.aux_names) == ["frame0000.png", "frame0001.png"]
    first, second = read_rgb(frames.aux_path(0)), read_rgb(frames.aux_path(1))
    white = [255, 255, 255]
    assert first[0, 0].tolist() == [220, 30, 30] and second[0, 0].tolist() == white
    assert first[2, 1].tolist() == [30, 30, 200]  # the event at 2000 us belongs to the next frame
    assert second[2, 1].tolist() == [220, 30, 30] and second[3, 0].tolist() == [30, 30, 200]
    assert render_sequence(entry) == 0  # they are there now


def test_the_command_says_what_it_cannot_render_and_removes_an_index_from_before(
    bare, recording, copies, capsys
):
    copies.write_images(bare / "test" / "cat" / "vis_imgs", ["frame0000.bmp"])
    copies.write_visevent(bare / "test" / "dog")
    shutil.copytree(bare / "test" / "bird", bare / "test" / "cow")
    unfinished = f".event_imgs.{socket.gethostname()}-{{}}.partial"
    own = bare / "test" / "cow" / unfinished.format(os.getpid())
    own.touch()  # stands for a read-only folder
    left_over, of_another = (
        bare / "test" / "bird" / unfinished.format(pid) / "frame0009.png"
        for pid in (99_999_999, os.getppid())
    )
    for file in (left_over, of_another):
        file.parent.mkdir()
        file.touch()
    assert main(["data", "check", "visevent", str(bare), "--fix-index"]) == 1
    assert open_dataset("visevent", bare, "test").names == ["dog"]
    capsys.readouterr()
    (bare / "test" / "bird" / "event_imgs").mkdir()  # by a conversion that was interrupted
    assert main(["data", "events", "visevent", str(bare), "--split", "test"]) == 1
    *problems, count = capsys.readouterr().out.splitlines()
    assert "cat: neither event images nor a stream" in problems[0]
    assert str(own) in problems[1] and len(problems) == 2
    assert count == "2 event images written"
    data = open_dataset("visevent", bare, "test")
    assert data.names == ["bird", "cat", "cow", "dog"] and len(data[0]) == 2
    assert of_another.exists() and not left_over.parent.exists()
    shutil.rmtree(bare / "test" / "bird" / "event_imgs")
    copies.write_rows(bare / "test" / "bird" / "event_imgs" / "notes.txt")
    with pytest.raises(UserError, match="event_imgs: holds files but no images; remove it"):
        render_sequence(data.entries[0])


def test_names_count_the_frames_of_a_longer_recording(bare, copies, monkeypatch):
    """The public script extracts all frames but the last; a sequence may also begin later."""
    events = Events(np.array([5, 15, 25, 35, 45]), np.arange(5), np.zeros(5, int), np.ones(5, bool))
    stream = EventStream(events, (1, 5), np.array([10, 20, 30, 40, 50]))
    monkeypatch.setattr(event_stream, "read_stream", lambda path: stream)
    folder = bare / "test" / "bird"
    for first, shown in ((0, [{0}, {1}]), (2, [{2}, {3}])):
        shutil.rmtree(folder / "vis_imgs")
        copies.write_images(folder / "vis_imgs", copies.numbered("frame%04d.bmp", first, 2))
        entry = open_dataset("visevent", bare, "test").entries[0]
        assert render_sequence(entry) == 2
        for number, columns in enumerate(shown, first):
            image = read_rgb(folder / "event_imgs" / f"frame{number:04d}.png")
            assert set(np.flatnonzero((image[0] != 255).any(1))) == columns
        shutil.rmtree(folder / "event_imgs")


def test_a_stream_of_other_frames_is_an_error_and_leaves_nothing(bare, recording, copies):
    folder = bare / "test" / "bird"
    copies.write_images(folder / "vis_imgs", ["frame0002.bmp"])
    entry = open_dataset("visevent", bare, "test").entries[0]
    with pytest.raises(UserError, match="2 frame times for 3 colour images"):  # more images
        render_sequence(entry)
    (folder / "bird.aedat4").unlink()
    with pytest.raises(UserError, match="neither event images nor a stream"):
        render_sequence(entry)
    assert not (folder / "event_imgs").exists()
    shutil.rmtree(folder / "vis_imgs")
    with pytest.raises(UserError, match="no folder of colour images"):
        render_sequence(entry)
