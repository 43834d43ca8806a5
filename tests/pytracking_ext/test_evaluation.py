"""Running over a data set: files, resume, failures, scores, the command."""

import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from ltr_ext.dataset.registry import open_dataset
from ltr_ext.models.registry import build_network
from pytracking_ext import run_tracker
from pytracking_ext.analysis.conventions import convention
from pytracking_ext.evaluation.datasets import Shard, part, read_sequences
from pytracking_ext.evaluation.loading import read_predictions
from pytracking_ext.evaluation.results import TrackResult, write_result
from pytracking_ext.evaluation.running import track_dataset, track_sequence
from pytracking_ext.evaluation.scores import score_folder
from pytracking_ext.parameter.srft import TrackerParameters, in_engine
from pytracking_ext.run_tracker import evaluate, network_size
from pytracking_ext.tracker.srft import SRFTTracker
from srft_plugin.cli import main as srft
from srft_plugin.errors import UserError


@pytest.fixture
def sequences(white_square):
    return [white_square("slow", speed=1), white_square("fast", speed=4)]


def test_results_are_written_read_and_scored(tmp_path, parameters, sequences):
    directory = tmp_path / "results" / "depthtrack"
    assert evaluate(parameters, sequences, directory, progress=False) == {}
    names = {path.name for path in directory.iterdir()}
    assert names == {"run.json"} | {
        f"{s}{suffix}.txt" for s in ("slow", "fast") for suffix in ("", "_confidence", "_time")
    }
    assert "." in (directory / "slow.txt").read_text().splitlines()[5]
    result = score_folder(sequences, directory, convention("depthtrack"))
    assert result.total["IoU"] > 0.85 and result.total["F"] > 0.8
    assert set(result.sequences) == {"slow", "fast"}


def test_a_second_run_tracks_only_what_is_missing(tmp_path, parameters, sequences):
    evaluate(parameters, sequences, tmp_path / "r", progress=False)
    before = (tmp_path / "r" / "fast.txt").read_bytes()
    (tmp_path / "r" / "fast.txt").unlink()
    parameters.network.batch_sizes.clear()
    evaluate(parameters, sequences, tmp_path / "r", progress=False)
    assert len(parameters.network.batch_sizes) == 11
    assert (tmp_path / "r" / "fast.txt").read_bytes() == before


def test_results_of_other_weights_are_not_mixed_in(tmp_path, parameters, sequences):
    evaluate(parameters, sequences[:1], tmp_path / "r", progress=False)
    parameters.checkpoint.write_bytes(b"other weights")
    with pytest.raises(UserError, match="results of another tracker.*checkpoint_sha256"):
        evaluate(parameters, sequences, tmp_path / "r", progress=False)
    parameters.checkpoint.write_bytes(b"weights")
    parameters.margin = 3
    with pytest.raises(UserError, match=r"another tracker \(margin=[\d.]+; now margin=3\)"):
        evaluate(parameters, sequences, tmp_path / "r", progress=False)
    header = json.loads((tmp_path / "r" / "run.json").read_text())
    assert header["checkpoint"] == str(parameters.checkpoint)
    assert header["versions"]["torch"] and "CPU" in header["device"]
    assert header["parameters_m"] == 1e-6


def test_results_of_other_data_are_not_taken_for_this_data(
    tmp_path, parameters, sequences, white_square
):
    evaluate(parameters, sequences, tmp_path / "r", progress=False)
    moved = replace(sequences[0], boxes=sequences[0].boxes + [3, 0, 0, 0])
    with pytest.raises(UserError, match="slow.txt is the result of another sequence slow: found"):
        evaluate(parameters, [moved], tmp_path / "r", progress=False)
    with pytest.raises(UserError, match=r"found 12 rows, expected one for each of 9 frames"):
        evaluate(parameters, [white_square("slow", speed=1, length=9)], tmp_path / "r")


@pytest.mark.parametrize("name", ["upvpt_swintrack_t224", "two_branch_ostrack256"])
def test_the_size_of_every_kind_of_network_is_known(name, tmp_path):
    with torch.device("meta"):
        network = build_network(name)
    size = network_size(TrackerParameters(network, tmp_path / "weights", "meta"))
    assert size["gflops"] > 1 and size["parameters_m"] > 1


def test_the_engine_leaves_the_size_of_the_network_as_it_is(tiny_parameters):
    assert network_size(in_engine(tiny_parameters, "int8")) == network_size(tiny_parameters)


@pytest.mark.parametrize("text", ["", "{", "[1]"])
def test_a_damaged_header_is_named(tmp_path, parameters, sequences, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match="run.json is damaged: .* track again"):
        evaluate(parameters, sequences, tmp_path, progress=False)


def test_a_failing_sequence_is_named_and_the_others_go_on(tmp_path, parameters, sequences):
    sequences[0].frames.images[4] = UserError("color/00000005.jpg: truncated image")
    failures = evaluate(parameters, sequences, tmp_path / "r", progress=False)
    assert failures == {"slow": "color/00000005.jpg: truncated image"}
    assert (tmp_path / "r" / "fast.txt").exists()
    assert not list((tmp_path / "r").glob("slow*"))
    sequences[0].frames.images[4] = ZeroDivisionError("bug")
    failures = evaluate(parameters, sequences, tmp_path / "r", progress=False)
    assert failures == {"slow": "frame 4: ZeroDivisionError: bug"}


def test_an_unreadable_auxiliary_image_costs_one_frame(parameters, white_square, white_finder):
    parameters.network = white_finder(in_channels=6)
    sequence = white_square(modality="depth")
    sequence.frames.auxiliary = [sequence.frames.rgb(i) for i in range(12)]
    sequence.frames.auxiliary[7] = UserError("depth/00000008.png: truncated image")
    result = track_sequence(SRFTTracker(parameters), sequence)
    assert result.aux_missing == 1
    assert np.isfinite(result.boxes).all()


def test_trackers_by_rgb_do_not_read_auxiliary_images(parameters, white_square, monkeypatch):
    sequence = white_square("bag")
    monkeypatch.setattr(type(sequence.frames), "aux", lambda *_: pytest.fail("was read"))
    sequence = replace(sequence, modality="depth")
    assert not parameters.network.spec.reads_aux
    assert np.isfinite(track_sequence(SRFTTracker(parameters), sequence).boxes).all()


def test_tracking_starts_at_the_first_annotated_frame(parameters, white_square):
    sequence = white_square()
    sequence.boxes[:3] = np.nan
    result = track_sequence(SRFTTracker(parameters), sequence)
    assert np.isnan(result.boxes[:3]).all() and np.isnan(result.confidences[:3]).all()
    np.testing.assert_array_equal(result.boxes[3], sequence.boxes[3])
    sequence.boxes[:] = np.nan
    with pytest.raises(UserError, match="'square' has no annotated target"):
        track_sequence(SRFTTracker(parameters), sequence)


def test_results_survive_the_disk(tmp_path):
    rng = np.random.default_rng(0)
    boxes = rng.random((5, 4)) * 100
    boxes[0] = np.nan
    write_result(tmp_path, "a", TrackResult(boxes, rng.random(5), rng.random(5)))
    read = read_predictions(tmp_path, ["a"])["a"]
    np.testing.assert_allclose(read.boxes, boxes, atol=1e-4)
    assert len(read.confidences) == len(read.times) == 5
    (tmp_path / "a_time.txt").write_text("1\n")
    with pytest.raises(UserError, match="1 rows but a.txt 5"):
        read_predictions(tmp_path, ["a"])


class Dataset(list):
    """Sequences by name; one that is an exception is raised when it is opened."""

    def __init__(self, **sequences):
        super().__init__(sequences.values())
        self.names = list(sequences)

    def __getitem__(self, index):
        item = super().__getitem__(index)
        if isinstance(item, Exception):
            raise item
        return item


def test_choosing_sequences(sequences):
    slow, fast = sequences
    dataset = Dataset(slow=slow, broken=UserError("12 rows for 13 frames"), fast=fast)
    assert read_sequences(dataset) == ([slow, fast], {"broken": "12 rows for 13 frames"})
    assert read_sequences(dataset, "2") == ([fast], {})
    assert read_sequences([slow, fast], "fast") == ([fast], {})
    with pytest.raises(UserError, match="did you mean fast"):
        read_sequences(dataset, "fats")


def test_shards_cover_everything_once_and_evenly(white_square, monkeypatch):
    sequences = [white_square(str(n), length=n) for n in (3, 40, 5, 20, 7, 9, 11)]
    shards = [part(sequences, Shard.parse(f"{i}/3")) for i in (1, 2, 3)]
    assert sorted(s.name for shard in shards for s in shard) == sorted(s.name for s in sequences)
    assert part(sequences, Shard.of_process()) == sorted(sequences, key=len, reverse=True)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert part(sequences, Shard.of_process()) == shards[2]
    for wrong in ("0/3", "4/3", "1", "a/b"):
        with pytest.raises(UserError, match="no shard"):
            Shard.parse(wrong)


def test_lock_step_gives_the_sequential_boxes(tmp_path, tiny_parameters, white_square):
    sequences = [
        white_square(str(n), length=n, speed=speed)
        for n, speed in ((9, 1), (4, 3), (12, 2), (6, -1), (5, 0))
    ]
    sequences[1].boxes[0] = np.nan
    for batch in (1, 3):
        folder = tmp_path / str(batch)
        folder.mkdir()
        assert track_dataset(sequences, tiny_parameters, folder, batch, progress=False) == {}
    names = [s.name for s in sequences]
    alone, together = (read_predictions(tmp_path / str(batch), names) for batch in (1, 3))
    for sequence in sequences:
        a, b = alone[sequence.name], together[sequence.name]
        assert len(a.boxes) == len(sequence)
        np.testing.assert_allclose(a.boxes, b.boxes, atol=0.01)
        np.testing.assert_allclose(a.confidences, b.confidences, atol=1e-4)
        assert (np.diff(a.boxes[1:], axis=0) != 0).any()


def test_in_a_batch_only_the_culprit_fails(tmp_path, parameters, white_square, white_finder):
    parameters.network = white_finder(in_channels=6)
    sequences = [white_square(str(n), length=8, modality="depth") for n in range(4)]
    for sequence in sequences:
        sequence.frames.auxiliary = [sequence.frames.rgb(i) for i in range(8)]
    sequences[1].frames.images[3] = UserError("truncated image")
    sequences[2].frames.auxiliary[5] = np.zeros((5, 5, 3), np.uint8)
    failures = track_dataset(sequences, parameters, tmp_path, 4, progress=False)
    assert sorted(failures) == ["1", "2"]
    assert failures["1"] == "truncated image" and "5x5" in failures["2"]
    assert max(parameters.network.batch_sizes) == 4
    expected = track_sequence(SRFTTracker(parameters), sequences[3])
    np.testing.assert_allclose(
        read_predictions(tmp_path, ["3"])["3"].boxes, expected.boxes, atol=1e-4
    )


def test_after_a_shortage_of_memory_batches_are_smaller(tmp_path, parameters, white_square, caplog):
    run, sizes = parameters.network.forward, []

    def short_of_memory(template, search):
        sizes.append(len(search))
        if len(search) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return run(template, search)

    parameters.network.forward = short_of_memory
    sequences = [white_square(str(n), length=4) for n in range(5)]
    assert track_dataset(sequences, parameters, tmp_path, 5, progress=False) == {}
    assert sizes == [5, *(2, 2, 1) * 3]
    assert [record.message for record in caplog.records] == [
        "a batch of 5 exceeds the memory; tracking at most 2 at once (--batch)"
    ]


def test_a_diverged_network_is_named(parameters, white_square):
    parameters.network.forward = lambda template, search: {
        "score_map": torch.full((1, 1, 8, 8), torch.nan),
        "size_map": torch.zeros(1, 2, 8, 8),
        "offset_map": torch.zeros(1, 2, 8, 8),
    }
    with pytest.raises(UserError, match="network.safetensors: the network answers with NaN"):
        track_sequence(SRFTTracker(parameters), white_square())


def test_the_command_tracks_scores_and_fails_honestly(
    tmp_path, parameters, sequences, monkeypatch, capsys
):
    monkeypatch.setattr(run_tracker, "load", lambda *_: parameters)
    monkeypatch.setattr(run_tracker, "open_test_set", lambda name, root: sequences)
    command = ["srft", "any", "--dataset_name", "depthtrack", "--results", str(tmp_path)]
    assert run_tracker.main(command) == 0
    output = capsys.readouterr().out
    assert "slow" in output and "all 50 sequences of depthtrack; here are 2." in output
    assert (tmp_path / "srft" / "any" / "depthtrack" / "fast.txt").exists()
    sequences[0].frames.images[4] = UserError("truncated image")
    assert run_tracker.main([*command, "--runid", "3"]) == 1
    assert "FAILED slow: truncated image" in capsys.readouterr().err
    assert (tmp_path / "srft" / "any_003" / "depthtrack" / "fast.txt").exists()
    assert run_tracker.main([*command, "--sequence", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert srft(["evaluate", *command[1:]]) == 0  # the same command, for data sets of one's own
    assert capsys.readouterr().out == output


def test_a_sequence_whose_first_image_is_unreadable_costs_no_other_its_score(
    tmp_path, parameters, sequences, monkeypatch, capsys
):
    monkeypatch.setattr(run_tracker, "load", lambda *_: parameters)
    monkeypatch.setattr(run_tracker, "open_test_set", lambda name, root: sequences)
    sequences[0].frames.images[0] = UserError("truncated image")
    sequences[1].frames.images[0] = UserError("truncated image")
    sequences[1].boxes[0] = np.nan  # its tracker starts at the second frame
    command = ["srft", "any", "--dataset_name", "depthtrack", "--results", str(tmp_path)]
    assert run_tracker.main(command) == 1
    output = capsys.readouterr()
    assert "FAILED slow: truncated image" in output.err and "FAILED fast" not in output.err
    assert "1 of 2 sequences have no result and are left out: slow" in output.out


def test_where_a_server_has_the_ground_truth_nothing_is_scored(
    tmp_path, parameters, sequences, monkeypatch, capsys
):
    for sequence in sequences:
        sequence.boxes[1:] = np.nan
    monkeypatch.setattr(run_tracker, "load", lambda *_: parameters)
    monkeypatch.setattr(run_tracker, "open_test_set", lambda name, root: sequences)
    command = ["srft", "any", "--dataset_name", "trackingnet", "--results", str(tmp_path)]
    assert run_tracker.main(command) == 0
    output = capsys.readouterr()
    assert output.out == "" and "its server scores the files" in output.err
    assert (tmp_path / "srft" / "any" / "trackingnet" / "fast.txt").exists()


@pytest.mark.parametrize(("split", "seen"), [("train", [1, 0, 1]), ("test", [1, 1, 1])])
def test_boxes_of_one_pixel_are_scored_but_not_learned_from(tmp_path, split, seen):
    folder = tmp_path / split / "kite"
    for kind in ("vis_imgs", "event_imgs"):
        (folder / kind).mkdir(parents=True)
        for frame in range(3):
            image = np.zeros((8, 8, 3), np.uint8)
            cv2.imwrite(str(folder / kind / f"{frame:04d}.bmp"), image)
    (folder / "groundtruth.txt").write_text("1,1,4,4\n2,2,1,1\n3,3,4,4\n")
    (folder / "absent_label.txt").write_text("1\n1\n1\n")
    (sequence,) = open_dataset("visevent", tmp_path, split)
    assert sequence.visible.tolist() == seen
