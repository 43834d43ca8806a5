"""Every planted defect is found, named, and left out of the index."""

import json

import cv2
import numpy as np
import pytest

from ltr_ext.dataset.base import list_frames, read_ground_truth
from ltr_ext.dataset.check import check_dataset, format_report
from ltr_ext.dataset.registry import open_dataset
from pytracking_ext.evaluation.running import read_frame
from srft_plugin.cli import main
from srft_plugin.errors import UserError


def run(*arguments) -> int:
    return main(["data", "check", *map(str, arguments)])


def cut_file(path):
    path.write_bytes(path.read_bytes()[:-30])


def missing_partner(folder):
    (folder / "depth" / "00000003.png").unlink()


def truncated_colour(folder):
    cut_file(folder / "color" / "00000002.jpg")


def truncated_depth(folder):
    cut_file(folder / "depth" / "00000004.png")


def empty_file(folder):
    (folder / "color" / "00000002.jpg").write_bytes(b"")


def dangling_link(folder):
    path = folder / "color" / "00000002.jpg"
    path.unlink()
    path.symlink_to("nowhere.jpg")


def odd_name(folder):
    for n in range(5, 9):  # a copy among eight frames
        for kind, suffix in (("color", "jpg"), ("depth", "png")):
            source = folder / kind / f"00000001.{suffix}"
            (folder / kind / f"{n:08d}.{suffix}").write_bytes(source.read_bytes())
    (folder / "color" / "00000008.jpg").rename(folder / "color" / "00000008 (copy).jpg")
    (folder / "groundtruth.txt").write_text("1,2,3,4\n" * 8)


def gap_in_numbers(folder):
    for kind, suffix in (("color", "jpg"), ("depth", "png")):
        (folder / kind / f"00000003.{suffix}").unlink()


def box_outside(folder):
    (folder / "groundtruth.txt").write_text("1,2,3,4\n" * 3 + "400,2,3,4\n")


def huge_box(folder):
    (folder / "groundtruth.txt").write_text("1,2,3,4\n" * 3 + "-50,-50,100,100\n")


def too_few_rows(folder):
    (folder / "groundtruth.txt").write_text("1,2,3,4\n" * 3)


def too_many_rows(folder):
    (folder / "groundtruth.txt").write_text("1,2,3,4\n" * 5)


def columns(folder):
    (folder / "groundtruth.txt").write_text("1,2,3,4\n1,2,3\n" * 2)


def all_absent(folder):
    (folder / "groundtruth.txt").write_text("nan,nan,nan,nan\n" * 4)


def eight_bit_depth(folder):
    cv2.imwrite(str(folder / "depth" / "00000001.png"), np.zeros((30, 40), np.uint8))


def other_size(folder):
    cv2.imwrite(str(folder / "depth" / "00000001.png"), np.zeros((15, 20), np.uint16))


def no_annotation(folder):
    (folder / "groundtruth.txt").unlink()


def no_depth(folder):
    (folder / "depth").rename(folder / "tiefe")


def no_folder_but_a_file(folder):
    no_depth(folder)
    (folder / "depth").touch()


def in_parts_of_the_image(folder):
    (folder / "groundtruth.txt").write_text("0.1,0.2,0.3,0.25\n" * 4)


def two_corners(folder):
    (folder / "groundtruth.txt").write_text("25,20,37,29\n" * 3 + "1,2,3,4\n")


def not_an_image(folder):
    (folder / "color" / "00000001.jpg").write_text("<html>quota exceeded</html>")


def sixteen_bits_per_colour(folder):
    png = cv2.imencode(".png", np.zeros((30, 40, 3), np.uint16))[1]
    (folder / "color" / "00000001.jpg").write_bytes(png)


DEFECTS = [
    (missing_partner, "unpaired: 4 colour, 3 depth images; without partner color/00000003.jpg", 4),
    (truncated_colour, "truncated or unreadable color/00000002.jpg", 3),
    (truncated_depth, "truncated or unreadable depth/00000004.png", 4),
    (empty_file, "truncated or unreadable color/00000002.jpg", 3),
    (dangling_link, "truncated or unreadable color/00000002.jpg", 3),
    (odd_name, "color/: oddly named 00000008 (copy).jpg", 8),
    (gap_in_numbers, "color/: no image numbered 3", 3),
    (box_outside, "groundtruth.txt: box outside the image in line 4", 4),
    (huge_box, "groundtruth.txt: box more than twice as large as the image in line 4", 4),
    (too_few_rows, "groundtruth.txt: 3 rows for 4 frames", 3),
    (too_many_rows, "groundtruth.txt: 5 rows for 4 frames", 4),
    (columns, "groundtruth.txt, line 2: found 3 numbers", None),
    (all_absent, "groundtruth.txt: no frame shows the target", None),
    (eight_bit_depth, "00000001.png: a depth image of shape (30, 40) and type uint8", 4),
    (other_size, "frame 0: colour 40x30, depth 20x15 pixels", 4),
    (no_annotation, "no ground-truth file", None),
    (no_depth, "no folder of depth images", None),
    (no_folder_but_a_file, "s2/depth: cannot be read (Not a directory)", None),
    (not_an_image, "00000001.jpg: not an image", 3),
    (sixteen_bits_per_colour, "00000001.jpg: a colour image of shape (30, 40, 3) and type", 3),
    (in_parts_of_the_image, "groundtruth.txt: most boxes are smaller than a pixel", 4),
    (two_corners, "groundtruth.txt: most boxes reach beyond the image", 4),
]
WITHOUT_DEPTH = (missing_partner, truncated_depth, eight_bit_depth)  # in one frame


def no_rgb(folder):
    (folder / "visible").rename(folder / "rgb")


def sixteen_bit_thermal(folder):
    png = cv2.imencode(".png", np.zeros((30, 40), np.uint16))[1]
    (folder / "infrared" / "000000i.jpg").write_bytes(png)


def blank_row(folder):
    for file in folder.glob("*.txt"):
        file.write_text("1,2,3,4\n\n" + "1,2,3,4\n" * 2)


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (blank_row, ["expected one row per frame", "correct the file or download it again"]),
        (no_rgb, ["no folder of colour images; expected visible"]),
        (sixteen_bit_thermal, ["expected (H, W) uint8", "scale it to 8 bits"]),
    ],
)
def test_a_finding_says_what_was_expected_and_what_to_do(write_copy, capsys, damage, expected):
    root = write_copy("lasher")
    damage(root / "testingset" / "s2")
    assert run("lasher", root, "--split", "test") == 1
    printed = capsys.readouterr().out
    assert all(text in printed for text in expected)


@pytest.mark.parametrize(
    "name", ["depthtrack", "lasher", "gtot", "visevent", "coesot", "fe108", "otb"]
)
def test_a_whole_copy_has_no_problems(write_copy, name, capsys):
    assert run(name, write_copy(name), "--split", "test") == 0
    assert "2 sequences" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("damage", "problem", "left"), DEFECTS, ids=[item[0].__name__ for item in DEFECTS]
)
def test_a_planted_defect_is_found_and_left_out_of_the_index(
    write_copy, capsys, damage, problem, left
):
    root = write_copy("depthtrack")
    damage(root / "test" / "s2")
    assert run("depthtrack", root, "--split", "test", "--fix-index") == 1
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if problem in line)
    assert line.split()[0] == "s2"
    assert "s10 " not in printed  # the other sequence is whole
    data = open_dataset("depthtrack", root, "test")
    assert data.names == (["s10"] if left is None else ["s2", "s10"])
    assert len(data[0]) == len(data[0].frames) == (left or 4)
    by_rgb = [t for t in range(left or 4) if "aux" not in read_frame(data[0], t)[1]]
    assert len(by_rgb) == (damage in WITHOUT_DEPTH)


@pytest.mark.parametrize("damage", WITHOUT_DEPTH)
def test_nothing_is_learned_from_frames_without_depth(write_copy, damage):
    root = write_copy("depthtrack")
    damage((root / "test").rename(root / "train") / "s2")
    assert run("depthtrack", root, "--fix-index") == 1
    (sequence, _) = open_dataset("depthtrack", root, "train")
    assert len(sequence) == len(sequence.frames) == 3
    for t in range(3):
        sequence.frames.rgb(t), sequence.frames.aux(t)


def test_images_that_are_not_looked_at_do_not_end_the_check(write_copy):
    root = write_copy("depthtrack")
    for number in (1, 2):
        (root / "test" / "s2" / "color" / f"{number:08d}.jpg").write_text("<html></html>")
    (report,) = check_dataset("depthtrack", root, ["test"], samples=1)
    (finding,) = report.findings
    assert "00000001.jpg: not an image" in finding.problem


@pytest.mark.parametrize(
    "name", ["depthtrack", "lasher", "gtot", "rgbt234", "visevent", "coesot", "fe108"]
)
def test_defects_are_found_in_every_layout(write_copy, name):
    root = write_copy(name)
    entries = open_dataset(name, root, "test").entries
    whole = [list_frames(entry) for entry in entries]
    whole[0].aux_path(3).unlink()
    cut_file(whole[1].rgb_path(2))
    annotation, _ = read_ground_truth(entries[1])
    annotation.write_text("1,2,3,4\n" * 3)
    findings = check_dataset(name, root, ["test"])[0].findings
    unpaired, *others = [finding.problem for finding in findings if finding.sequence == "s2"]
    assert unpaired.startswith("unpaired: 4 colour, 3 ") and others == []
    problems = [finding.problem for finding in findings if finding.sequence == "s10"]
    assert f"truncated or unreadable {whole[1].rgb_folder.name}/{whole[1].rgb_names[2]}" in problems
    assert f"{annotation.name}: 3 rows for 4 frames" in problems
    assert all(finding.remedy for finding in findings)


@pytest.mark.parametrize(
    "name", ["lasot", "got10k", "trackingnet", "tnl2k", "otb", "uav123", "vot"]
)
def test_defects_are_found_in_every_layout_of_one_camera(copies, tmp_path, name):
    split, writer = copies.RGB_PARTS[name]
    for sequence in ("s1", "s2", "s3", "s4"):
        writer(tmp_path, sequence)
    entries = open_dataset(name, tmp_path, split).entries
    assert check_dataset(name, tmp_path, [split])[0].findings == []
    frames = [list_frames(entry) for entry in entries]
    annotations = [read_ground_truth(entry)[0] for entry in entries]
    cut_file(frames[0].rgb_path(2))
    annotations[1].write_text("1,2,3,4\n" * 6)
    annotations[2].write_text("1,2,3,4\n" * 3 + "1,2,three,4\n")
    annotations[3].unlink()
    report = check_dataset(name, tmp_path, [split])[0]
    image = f"{frames[0].rgb_folder.name}/{frames[0].rgb_names[2]}"
    for sequence, problem in (
        ("s1", f"truncated or unreadable {image}"),
        ("s2", f"{annotations[1].name}: 6 rows for 4 frames"),
        ("s3", f"{annotations[2].name}, line 4: '1,2,three,4' is not numbers"),
        ("s4", "no ground-truth file"),
    ):
        found = [item.problem for item in report.findings if item.sequence.endswith(sequence)]
        assert any(problem in text for text in found)


def test_the_report_as_json(write_copy, capsys):
    root = write_copy("depthtrack")
    truncated_colour(root / "test" / "s2")
    assert run("depthtrack", root, "--split", "test", "--json", "--fix-index") == 1
    (part,) = json.loads(capsys.readouterr().out)
    (finding,) = part.pop("findings")
    counts = {"official": 50, "sequences": 2, "frames": 8}
    assert part == {"name": "depthtrack", "split": "test", **counts}
    assert finding["sequence"] == "s2" and finding["remedy"]
    assert finding["problem"] == "truncated or unreadable color/00000002.jpg"


def test_files_beside_the_ground_truth_are_checked(write_copy):
    root = write_copy("lasher")
    (root / "testingset" / "s2" / "infrared.txt").write_text("1,2,3\n" * 4)
    (root / "testingset" / "s10" / "infrared.txt").write_text("1,2,3,4\n" * 3)
    found = check_dataset("lasher", root, ["test"])[0].findings
    assert [item.sequence for item in found] == ["s2", "s10"]
    assert "infrared.txt, line 1: found 3 numbers" in found[0].problem
    assert found[1].problem == "infrared.txt: 3 rows, the first ground truth has 4"


def test_a_sequence_that_is_listed_twice_or_not_there_is_found(write_copy):
    root = write_copy("lasher")
    (root / "testingsetList.txt").write_text("s2\ns10\ns2\ns11\n")
    found = {item.sequence: item.problem for item in check_dataset("lasher", root)[0].findings}
    assert found.keys() == {"s2", "s11"}
    assert found["s2"] == "listed 2 times" and found["s11"].endswith("s11: no such folder")


def test_missing_event_images_are_to_be_rendered(write_copy):
    root = write_copy("visevent")
    (root / "test" / "s2" / "event_imgs").rename(root / "test" / "s2" / "events")
    (finding,) = check_dataset("visevent", root, ["test"])[0].findings
    assert "no folder of event images" in finding.problem
    assert finding.remedy == "render it with `srft data events`"


def test_inverted_labels_are_found(write_copy):
    root = write_copy("visevent")
    (root / "test" / "s2" / "absent_label.txt").write_text("0\n1\n0\n0\n")
    report = check_dataset("visevent", root, ["test"])[0]
    assert "most frames with a box are labelled absent" in report.findings[0].problem


def test_official_counts_are_compared(write_copy):
    report = check_dataset("depthtrack", write_copy("depthtrack"), ["test"])
    assert "2 sequences (the official distribution has 50), 8 frames" in format_report(report)


def test_a_part_that_is_not_there_is_an_error_only_when_asked_for(write_copy):
    root = write_copy("lasher")
    assert [report.split for report in check_dataset("lasher", root)] == ["test"]
    with pytest.raises(UserError, match="trainingset"):
        check_dataset("lasher", root, ["train"])
    with pytest.raises(UserError, match="unknown part of lasher 'val_part'"):
        check_dataset("lasher", root, ["val_part"])


def test_a_part_is_not_taken_for_a_sequence_of_another(write_copy):
    root = write_copy("depthtrack")  # its test part alone; the root could be that of either
    assert [report.split for report in check_dataset("depthtrack", root)] == ["test"]
    with pytest.raises(UserError, match="no sequences; expected the part 'train'"):
        open_dataset("depthtrack", root, "train")


def test_a_folder_that_is_not_there_is_said_once(tmp_path):
    with pytest.raises(UserError) as error:
        check_dataset("depthtrack", tmp_path / "none")
    assert str(error.value).count("is no folder") == 1


def test_real_sequences_are_whole(shared, capsys):
    assert run("depthtrack", shared / "data" / "RGBD", "--split", "test") == 0
    assert run("otb", shared / "data" / "RGB") == 0
    assert run("fe108", shared / "data" / "RGBE", "--split", "test") == 0
