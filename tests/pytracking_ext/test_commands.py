"""`srft score` and `srft track` as a user calls them, on files."""

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time

import cv2
import numpy as np
import pytest

from pytracking_ext import run_tracker, run_video
from pytracking_ext.commands import add_commands
from pytracking_ext.evaluation.attributes import ATTRIBUTES
from pytracking_ext.evaluation.streams import Stream, open_stream, open_streams
from pytracking_ext.tracker.srft import SRFTTracker
from srft_plugin.errors import UserError, report_errors


def srft(*words):
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers(required=True))
    arguments = parser.parse_args([str(word) for word in words])
    return report_errors(arguments.run, arguments)


@pytest.fixture
def depthtrack(tmp_path, white_square):
    """A data set of two sequences in DepthTrack's layout."""
    root = tmp_path / "DepthTrack" / "test"
    for name, speed in (("bag", 1), ("cup", 4)):
        sequence = white_square(name, speed=speed)
        for kind in ("color", "depth"):
            (root / name / kind).mkdir(parents=True)
        for index in range(len(sequence)):
            image = sequence.frames.rgb(index)
            cv2.imwrite(str(root / name / "color" / f"{index + 1:08d}.jpg"), image)
            depth = np.where(image[..., 0] > 0, 800, 3000).astype(np.uint16)
            cv2.imwrite(str(root / name / "depth" / f"{index + 1:08d}.png"), depth)
        np.savetxt(root / name / "groundtruth.txt", sequence.boxes, delimiter=",", fmt="%.1f")
    return root.parent


@pytest.fixture
def results(depthtrack, tmp_path):
    """A folder of results: the truth, moved by a pixel."""
    folder = tmp_path / "mine" / "depthtrack"
    folder.mkdir(parents=True)
    for name in ("bag", "cup"):
        boxes = np.loadtxt(depthtrack / "test" / name / "groundtruth.txt", delimiter=",")
        np.savetxt(folder / f"{name}.txt", boxes + [1, 0, 0, 0], delimiter=",")
        np.savetxt(folder / f"{name}_confidence.txt", np.linspace(1, 0.5, len(boxes)))
    return folder


def test_score_prints_tables(depthtrack, results, capsys):
    assert srft("score", "depthtrack", depthtrack, results, f"again={results}") == 0
    output = capsys.readouterr().out
    assert "mine" in output and "again" in output
    assert "all 50 sequences of depthtrack; here are 2." in output
    assert srft("score", "depthtrack", depthtrack, results, "--format", "json", "--sequences",
                "--set", "metrics=IoU,SR", "first_frame=truth") == 0  # fmt: skip
    total, rows = json.loads(capsys.readouterr().out)
    # 19 of 21 columns of pixels agree; the first of 12 frames is the given box
    expected = 100 * (1 + 11 * 19 / 21) / 12
    assert total["rows"][0]["IoU"] == pytest.approx(expected)
    assert [row["sequence"] for row in rows["rows"]] == ["bag", "cup"]
    apart = ("--set", "metrics=IoU,SR", "--set", "first_frame=truth")
    assert srft("score", "depthtrack", depthtrack, results, "--json", *apart) == 0
    (again,) = json.loads(capsys.readouterr().out)
    assert again == total
    assert "By other rules than those of depthtrack: no paper's rows compare." in again["notes"]


def test_score_says_what_is_missing(depthtrack, results, capsys):
    (results / "cup.txt").unlink()
    assert srft("score", "depthtrack", depthtrack, results, "--bootstrap") == 1
    assert "1 of 2 sequences have no result and are left out: cup" in capsys.readouterr().out
    image = depthtrack / "test" / "cup" / "color" / "00000001.jpg"
    whole = image.read_bytes()
    image.write_bytes(b"")  # and what has no result is not opened
    assert srft("score", "depthtrack", depthtrack, results) == 1
    assert "left out: cup" in capsys.readouterr().out
    image.write_bytes(whole)
    (depthtrack / "test" / "bag" / "groundtruth.txt").write_text("1,2,3,4\n")
    assert srft("score", "depthtrack", depthtrack, results) == 2
    message = capsys.readouterr().err
    assert "FAILED bag:" in message and "no result of the 1 sequences" in message
    (results / "cup.txt").write_bytes((results / "bag.txt").read_bytes())
    assert srft("score", "depthtrack", depthtrack, results) == 1
    assert "FAILED bag:" in capsys.readouterr().err
    assert srft("score", "depthtrack", depthtrack, results.parent) == 2
    message = f"{results.parent} has no result of the 1 sequences in {depthtrack}; expected"
    assert message in capsys.readouterr().err


def test_scores_by_attribute(depthtrack, results, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(ATTRIBUTES, "depthtrack", ("dark", "fast"))
    labels = tmp_path / "att"
    labels.mkdir()
    (labels / "bag.txt").write_text("1,0\n")
    (labels / "cup_attribute.txt").write_text("1\n1\n")
    words = ["score", "depthtrack", depthtrack, results, "--attributes", "--format", "json"]
    assert srft(*words) == 2
    assert "no attribute labels; give the folder" in capsys.readouterr().err
    assert srft(*words, "--attribute-files", labels) == 0
    _, first, *_ = json.loads(capsys.readouterr().out)
    assert [(row["attribute"], row["sequences"]) for row in first["rows"]] == [
        ("dark", 2),
        ("fast", 1),
    ]
    (depthtrack / "test" / "bag" / "wet.tag").write_text("0\n1\n")  # the data set's own
    assert srft(*words) == 0
    _, first, *_ = json.loads(capsys.readouterr().out)
    assert [(row["attribute"], row["sequences"]) for row in first["rows"]] == [("wet", 1)]
    (labels / "bag.txt").write_text("1,0,1\n")
    assert srft(*words, "--attribute-files", labels) == 2
    assert "3 values for the 2 attributes of depthtrack" in capsys.readouterr().err
    monkeypatch.delitem(ATTRIBUTES, "depthtrack")
    assert srft(*words, "--attribute-files", labels) == 2
    assert "unknown benchmark with attributes 'depthtrack'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        (["--set", "absent=no"], "expected one of skip, miss, hit"),
        (["--set", "absent"], "expected choice=value"),
        (["--set", "colour=red"], "unknown convention 'colour'"),
        (["{results}"], "two results are called 'mine'"),
        (["gone"], "gone is not a folder of results"),
    ],
)
def test_score_refuses_nonsense(depthtrack, results, capsys, words, message):
    words = [word.format(results=results) for word in words]
    extra = [] if words[0] == "--set" else words
    options = words if words[0] == "--set" else []
    assert srft("score", "depthtrack", depthtrack, results, *extra, *options) == 2
    assert message in capsys.readouterr().err


def test_a_data_set_without_a_usable_sequence_is_an_error(depthtrack, results, capsys):
    for name in ("bag", "cup"):
        (depthtrack / "test" / name / "groundtruth.txt").write_text("")
    assert srft("score", "depthtrack", depthtrack, results) == 2
    assert "groundtruth.txt: the file is empty" in capsys.readouterr().err


def test_a_folder_may_have_an_equals_sign_in_its_name(depthtrack, results, capsys):
    odd = results.with_name("lr=1e-4")
    shutil.copytree(results, odd)
    assert srft("score", "depthtrack", depthtrack, odd, f"low={odd}", "--json") == 0
    table = json.loads(capsys.readouterr().out)
    table = table[0] if isinstance(table, list) else table
    assert [row["tracker"] for row in table["rows"]] == ["lr=1e-4", "low"]


def test_torchrun_shares_the_sequences(depthtrack, tmp_path):
    """Two processes, one sequence each, for real."""
    words = ["srft", "default_rgb", "--dataset_name", "depthtrack", "--results", tmp_path / "r"]
    words += ["--dataset_root", depthtrack, "--device", "cpu", "--json"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    command = [*torchrun, "-m", "pytracking_ext.run_tracker", *words]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    directory = tmp_path / "r" / "srft" / "default_rgb" / "depthtrack"
    assert {"bag.txt", "cup.txt", "run.json"} <= {path.name for path in directory.iterdir()}
    # The first process scores what is there when it ends: its own sequence at least.
    per_sequence, total = json.loads(done.stdout)
    assert "bag" in [row["sequence"] for row in per_sequence["rows"]]
    assert total["rows"][0]["tracker"] == "default_rgb"


@pytest.fixture
def white_tracker(monkeypatch, parameters):
    monkeypatch.setattr(run_video, "load", lambda *_: parameters)
    return parameters


def test_track_a_folder_of_images(depthtrack, white_tracker, tmp_path, capsys):
    bag = depthtrack / "test" / "cup"
    out = tmp_path / "out"
    assert srft("track", "--rgb", bag / "color", "--init", "20,30,20,16",
                "--save", out / "cup.mp4", "--boxes", out / "cup.txt", "--json") == 0  # fmt: skip
    found = json.loads(capsys.readouterr().out)
    assert (found["frames"], found["boxes"]) == (12, str(out / "cup.txt"))
    for name in ("run1.2", "run1.3"):
        assert srft("track", "--rgb", bag / "color", "--init", "20,30,20,16",
                    "--boxes", out / name) == 0  # fmt: skip
        assert f"boxes: {out / name}.txt" in capsys.readouterr().out
        assert (out / f"{name}.txt").is_file()
    assert not (out / "run1.txt").exists()
    assert 0 < found["mean_confidence"] <= 1
    boxes = np.loadtxt(out / "cup.txt", delimiter=",")
    truth = np.loadtxt(bag / "groundtruth.txt", delimiter=",")
    assert np.abs(boxes - truth).max() < 2.5  # JPEG blurs the edge
    video = list(open_stream(str(out / "cup.mp4")))
    assert len(video) == 12 and video[0].shape == (120, 160, 3)
    # the annotation is in the picture: something green beside black and white
    greenness = video[5].astype(int)[..., 1] - video[5].astype(int)[..., 0]
    assert greenness.max() > 60


def test_a_video_that_does_not_fit_on_the_disk_is_an_error(
    depthtrack, white_tracker, tmp_path, capsys
):
    """The boxes, which do fit, are kept."""
    words = ["track", "--rgb", depthtrack / "test" / "bag" / "color", "--init", "20,30,20,16"]
    words += ["--save", tmp_path / "a.mp4", "--boxes", tmp_path / "a.txt"]
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (600, limits[1]))
    try:
        assert srft(*words) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "a.mp4 is not whole: it has 0 of 12 frames" in capsys.readouterr().err
    assert len(np.loadtxt(tmp_path / "a.txt", delimiter=",")) == 12


@pytest.mark.parametrize("suffix", ["avi", "mkv", "mpg"])
def test_a_video_of_another_format_is_whole_or_not(depthtrack, white_tracker, tmp_path, suffix):
    """OpenCV says of the whole MPEG file that it has two frames, of half the AVI file all 12."""
    file = tmp_path / f"a.{suffix}"
    words = ["track", "--rgb", depthtrack / "test" / "bag" / "color", "--init", "20,30,20,16"]
    assert srft(*words, "--save", file) == 0
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is not whole"):
        run_video.check_video(file, 12)


def test_half_a_video_is_tracked_with_a_warning(depthtrack, white_tracker, tmp_path, caplog):
    file = tmp_path / "a.avi"
    words = ["--init", "20,30,20,16", "--boxes", tmp_path / "a.txt"]
    assert srft("track", "--rgb", depthtrack / "test" / "bag" / "color", *words[:2],
                "--save", file) == 0  # fmt: skip
    assert srft("track", "--rgb", file, *words) == 0
    assert not caplog.text and len(np.loadtxt(tmp_path / "a.txt", delimiter=",")) == 12
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    assert srft("track", "--rgb", file, *words) == 0
    number = len(np.loadtxt(tmp_path / "a.txt", delimiter=",", ndmin=2))
    assert f"a.avi ends after {number} of the 12 frames" in caplog.text and number < 12


def test_the_video_to_track_is_not_written_over(depthtrack, white_tracker, tmp_path, capsys):
    color, file = depthtrack / "test" / "bag" / "color", tmp_path / "a.mp4"
    init = ["--init", "20,30,20,16"]
    assert srft("track", "--rgb", color, *init, "--save", file) == 0
    whole, link = file.read_bytes(), tmp_path / "link.mp4"
    link.symlink_to(file)
    for words in (["--rgb", file], ["--rgb", link], ["--rgb", color, "--aux", file]):
        assert srft("track", *words, *init, "--save", file) == 2
        assert "a.mp4 is the video to track; choose another name" in capsys.readouterr().err
    assert file.read_bytes() == whole


def test_track_two_streams(depthtrack, white_tracker, white_finder, tmp_path, capsys):
    white_tracker.network = white_finder(in_channels=6)
    bag = depthtrack / "test" / "bag"
    (bag / "depth" / "00000012.png").unlink()
    assert run_video.main(["srft", "any", str(bag / "color"), "--optional_box", "20", "30", "20",
                           "16", "--aux", str(bag / "depth")]) == 0  # fmt: skip
    assert "1 frames had no auxiliary image" in capsys.readouterr().out


def test_a_tracker_that_reads_no_auxiliary_images_says_so(depthtrack, white_tracker, capsys):
    bag = depthtrack / "test" / "bag"
    words = ["track", "--rgb", bag / "color", "--init", "20,30,20,16"]
    assert srft(*words, "--aux", bag / "depth") == 0
    assert "reads the RGB images alone; " in capsys.readouterr().err
    assert srft(*words) == 0
    assert "reads the RGB" not in capsys.readouterr().err


def test_folders_of_different_lengths_are_paired_by_number(depthtrack):
    bag = depthtrack / "test" / "bag"
    whole = list(open_streams(str(bag / "color"), str(bag / "depth"))[1])
    (bag / "depth" / "00000005.png").unlink()
    rgb, aux = open_streams(str(bag / "color"), str(bag / "depth"))
    found = list(aux)
    assert rgb.length == aux.length == len(found) == 12
    assert [index for index, image in enumerate(found) if image is None] == [4]
    assert np.array_equal(found[5], whole[5])
    for path in (bag / "depth").iterdir():
        path.rename(path.with_name(f"x{path.stem[-2:]}_1.png"))  # all have the number 1
    with pytest.raises(UserError, match="has 12 images, .*depth 11, and the numbers"):
        open_streams(str(bag / "color"), str(bag / "depth"))


def test_an_unreadable_image_costs_its_frame_or_ends_the_track(
    depthtrack, white_tracker, white_finder, tmp_path, capsys
):
    white_tracker.network = white_finder(in_channels=6)
    bag, boxes = depthtrack / "test" / "bag", tmp_path / "boxes.txt"
    for path in (bag / "depth" / "00000003.png", bag / "color" / "00000009.jpg"):
        path.write_bytes(path.read_bytes()[:40])
    words = ["track", "--rgb", bag / "color", "--aux", bag / "depth", "--init", "20,30,20,16"]
    assert srft(*words, "--boxes", boxes) == 2
    output = capsys.readouterr()
    assert "1 frames had no auxiliary image" in output.out and "8 frames" in output.out
    assert "00000009.jpg" in output.err and "the 8 frames before it were tracked" in output.err
    assert len(np.loadtxt(boxes, delimiter=",")) == 8
    (bag / "color" / "00000001.jpg").write_bytes(b"no image")
    assert srft(*words) == 2
    assert "00000001.jpg" in capsys.readouterr().err


def test_an_auxiliary_image_of_another_size_ends_the_track_and_keeps_it(
    depthtrack, white_tracker, white_finder, tmp_path, capsys
):
    white_tracker.network = white_finder(in_channels=6)
    bag, boxes = depthtrack / "test" / "bag", tmp_path / "boxes.txt"
    other = bag / "depth" / "00000007.png"
    cv2.imwrite(str(other), cv2.imread(str(other), cv2.IMREAD_UNCHANGED)[:-5])
    words = ["track", "--rgb", bag / "color", "--aux", bag / "depth", "--init", "20,30,20,16"]
    assert srft(*words, "--boxes", boxes) == 2
    message = capsys.readouterr().err
    assert "register them to the same size" in message and "the 6 frames before it" in message
    assert len(np.loadtxt(boxes, delimiter=",")) == 6


def test_frames_of_another_size_are_in_the_video(parameters, white_square, tmp_path):
    sequence, save = white_square(), tmp_path / "video.mp4"
    images = [sequence.frames.rgb(0), sequence.frames.rgb(1)[:-20], sequence.frames.rgb(2)]
    stream = Stream("frames", iter(images))
    tracker = SRFTTracker(parameters)
    run_video.follow(tracker, stream, sequence.boxes[0], save=save, progress=False)
    assert len(list(open_stream(str(save)))) == 3


@pytest.mark.parametrize(("length", "ahead"), [(20, 3), (None, 1)])
def test_images_are_read_while_another_is_tracked(length, ahead):
    """Those of a camera no further than one, so that the newest is tracked."""
    read = []

    def images():
        for number in range(20):
            read.append(number)
            yield np.full((2, 2, 3), number, np.uint8)

    stream = iter(Stream("frames", images(), length=length))
    for number in range(10):
        assert (next(stream) == number).all()
        assert len(read) <= number + 1 + ahead
    stream.close()
    assert len(read) == 10 + ahead  # the thread has come to an end


def test_ctrl_c_keeps_what_was_tracked(parameters, white_square, tmp_path):
    sequence = white_square()

    def interrupted():
        yield from (sequence.frames.rgb(i) for i in range(5))
        raise KeyboardInterrupt

    stream = Stream("camera", interrupted())
    save = tmp_path / "video.mp4"
    result = run_video.follow(
        SRFTTracker(parameters), stream, sequence.boxes[0], save=save, progress=False
    )
    assert len(result.boxes) == len(result.times) == 5 and (result.times > 0).all()
    assert len(list(open_stream(str(save)))) == 5


def test_ctrl_c_while_a_frame_is_drawn_leaves_no_box_without_a_frame(
    parameters, white_square, tmp_path, monkeypatch
):
    sequence, save = white_square(), tmp_path / "video.mp4"
    drawn = run_video.annotated

    def interrupted(image, box, confidence, number):
        if number == 3:
            raise KeyboardInterrupt
        return drawn(image, box, confidence, number)

    monkeypatch.setattr(run_video, "annotated", interrupted)
    stream = Stream("frames", map(sequence.frames.rgb, range(5)))
    tracker = SRFTTracker(parameters)
    result = run_video.follow(tracker, stream, sequence.boxes[0], save=save, progress=False)
    assert len(result.boxes) == 3
    run_video.check_video(save, 3)


def test_ctrl_c_before_the_first_box_is_no_unreadable_video(parameters, white_square, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(SRFTTracker, "initialize", interrupted)
    stream = Stream("frames", map(white_square().frames.rgb, range(2)))
    with pytest.raises(KeyboardInterrupt):
        run_video.follow(SRFTTracker(parameters), stream, (1, 2, 3, 4), progress=False)


@pytest.mark.parametrize(
    "words, message",
    [
        (["--rgb", "gone.mp4", "--init", "1,2,3,4"], "gone.mp4: no such video"),
        (["--rgb", "{folder}", "--init", "1,2,3"], "expected x,y,w,h"),
        (["--rgb", "{folder}", "--init", "900,2,3,4"], "initial box"),
        (["--rgb", "{empty}", "--init", "1,2,3,4"], "no images in this folder"),
        (["--rgb", "{file}", "--init", "1,2,3,4"], "cannot open this video"),
        (["--rgb", "{folder}", "--init", "1,2,3,4", "--save", "{file}/x.mp4"], "cannot write"),
        (["--rgb", "{folder}", "--init", "1,2,3,4", "--boxes", "{file}/x.txt"], "cannot write"),
    ],
)
def test_track_refuses_nonsense(depthtrack, white_tracker, tmp_path, capfd, words, message):
    places = {
        "folder": depthtrack / "test" / "bag" / "color",
        "empty": tmp_path / "nothing",
        "file": tmp_path / "text.mp4",
    }
    places["empty"].mkdir()
    places["file"].write_text("no video")
    assert srft("track", *(word.format(**places) for word in words)) == 2
    assert message in capfd.readouterr().err
    with pytest.raises(UserError, match="optional_box"):
        run_video.run(argparse.Namespace(optional_box=None))


@pytest.mark.parametrize("number", ["0", "-1", "two"])
def test_numbers_of_things_start_at_one(capsys, number):
    with pytest.raises(SystemExit):
        run_tracker.main(["srft", "default_rgb", "--dataset_name", "x", "--batch", number])
    assert f"found '{number}', expected a whole number from 1 on" in capsys.readouterr().err


def test_report_writes_a_page(depthtrack, results, tmp_path, capsys):
    out = tmp_path / "report"
    assert srft("report", "depthtrack", depthtrack, results, "--out", out) == 0
    assert f"report: {out / 'report.html'}" in capsys.readouterr().out
    assert "trackers differ most" not in (out / "report.html").read_text()
    (results / "cup.txt").unlink()
    assert srft("report", "depthtrack", depthtrack, results, "--out", out) == 1
    assert "left out: cup" in (out / "report.html").read_text()
    file = out / "report.html"
    assert srft("report", "depthtrack", depthtrack, results, "--out", file / "x") == 2
    assert "cannot write" in capsys.readouterr().err


def test_a_killed_evaluation_goes_on_where_it_was(depthtrack, base, tmp_path):
    """Kill -9 in the middle; the second run tracks the rest, and all files are as if unbroken."""
    (depthtrack / "test" / "bag2").symlink_to(depthtrack / "test" / "bag")
    (depthtrack / "test" / "cup2").symlink_to(depthtrack / "test" / "cup")
    words = ["srft", "any", "--dataset_name", "depthtrack", "--dataset_root", str(depthtrack),
             "--checkpoint", str(base), "--device", "cpu"]  # fmt: skip
    folder = tmp_path / "killed" / "srft" / "any" / "depthtrack"
    program = [sys.executable, "-m", "pytracking_ext.run_tracker"]
    process = subprocess.Popen(
        [*program, *words, "--results", tmp_path / "killed"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    while process.poll() is None and not list(folder.glob("*_confidence.txt")):
        time.sleep(0.002)
    process.kill()
    process.wait()
    names = ("bag", "bag2", "cup", "cup2")
    done = {name: (folder / f"{name}.txt").stat().st_mtime_ns
            for name in names if (folder / f"{name}.txt").exists()}  # fmt: skip
    assert len(done) < 4
    assert run_tracker.main([*words, "--results", str(tmp_path / "killed")]) == 0
    assert run_tracker.main([*words, "--results", str(tmp_path / "unbroken")]) == 0
    for name in names:
        file = folder / f"{name}.txt"
        assert (
            file.read_bytes()
            == (tmp_path / "unbroken" / "srft" / "any" / "depthtrack" / f"{name}.txt").read_bytes()
        )
        assert name not in done or file.stat().st_mtime_ns == done[name]
