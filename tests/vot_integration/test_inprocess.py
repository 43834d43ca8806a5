"""The run without TraX gives the files of the run with it; the bundled tracker, two branches."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from ltr_ext.models.checkpoint import BUNDLED, load_network, save_network
from ltr_ext.models.two_branch import two_branch_from
from srft_plugin.errors import UserError
from vot_integration.parameters import modality_of
from vot_integration.results import read_run
from vot_integration.runner import all_runs, evaluate
from vot_integration.score import score
from vot_integration.server import load_tracker
from vot_integration.workspace import create_workspace, tracker_environment, tracker_settings

from .conftest import write_data_set
from .test_runner import result_files


@pytest.fixture(scope="module")
def workspace(tmp_path_factory):
    """Two RGB-D sequences, one of them without its last depth image; a two-branch network."""
    folder = tmp_path_factory.mktemp("inprocess")
    data = write_data_set(folder / "data", {"a": 8, "b": 10})
    os.remove(data / "b" / "depth" / "00000010.png")
    save_network(two_branch_from(load_network(BUNDLED)), folder / "network.safetensors")
    return create_workspace(
        folder / "workspace",
        data,
        "tiny",
        checkpoint=folder / "network.safetensors",
        benchmark="vot-rgbd2022",
        name="tiny",
    )


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_named(device, tmp_path):
    data = write_data_set(tmp_path / "data", {"a": 3})
    workspace = create_workspace(tmp_path / "workspace", data, "default_rgb", device=device)
    with pytest.raises(UserError, match=f"env_SRFT_DEVICE in trackers.ini: found '{device}'"):
        evaluate(workspace, in_process=True)


def test_a_channel_that_is_not_there_is_named_and_depth_the_default(tmp_path):
    data = write_data_set(tmp_path / "data", {"a": 3})
    workspace = create_workspace(tmp_path / "workspace", data, "default_rgb")
    settings = tmp_path / "workspace" / "trackers.ini"
    text = settings.read_text()
    settings.write_text(text.replace("env_SRFT_CHANNEL = depth\n", ""))
    (outcome,) = evaluate(workspace, in_process=True)
    assert outcome.error is None
    with pytest.raises(UserError, match="unknown env_SRFT_CHANNEL in trackers.ini 'deep'"):
        modality_of("deep")


def boxes_and_confidences(workspace):
    return [read_run(folder, run) for folder, run in all_runs(workspace, "tiny")]


def test_equal_to_trax(workspace):
    by_trax = evaluate(workspace)
    files, answers = result_files(workspace, "tiny"), boxes_and_confidences(workspace)
    marks = {name: text for name, text in files.items() if name.endswith("_rgb_only.value")}
    figures = score(workspace, "tiny").figures

    outcomes = evaluate(workspace, force=True, in_process=True, batch=1)
    assert result_files(workspace, "tiny") | marks == files
    counts = {outcome.sequence: outcome.rgb_only for outcome in outcomes}
    assert counts["a"] == 0 < counts["b"]
    assert sorted(o.frames for o in outcomes) == sorted(o.frames for o in by_trax)

    # Two jobs have fewer threads each, by which some processors add in another order.
    evaluate(workspace, force=True, jobs=2)
    shared = result_files(workspace, "tiny")
    evaluate(workspace, force=True, in_process=True, batch=1, jobs=2)
    assert result_files(workspace, "tiny") | marks == shared
    assert shared.keys() == files.keys()

    # Runs that share a network call differ in the last digits of its sums.
    evaluate(workspace, force=True, in_process=True, batch=4)
    for (box, confidence), (batched, confidences) in zip(
        answers, boxes_and_confidences(workspace), strict=True
    ):
        np.testing.assert_allclose(batched, box, atol=2e-3)
        np.testing.assert_allclose(confidences, confidence, atol=1e-5)
    assert score(workspace, "tiny").figures == pytest.approx(figures, abs=0.01)


def test_only_missing_runs_are_made(workspace):
    (folder, run), *_ = all_runs(workspace, "tiny")
    evaluate(workspace, in_process=True)
    (folder / f"{run.name}.bin").unlink()
    outcomes = evaluate(workspace, in_process=True)
    assert {o.sequence: o.frames for o in outcomes} == {"a": len(run.frames) - 1, "b": 0}


def test_an_image_that_cannot_be_read_fails_its_sequence(workspace, tmp_path):
    spoiled = tmp_path / "data"
    shutil.copytree(workspace.directory / "sequences", spoiled, ignore=lambda *_: ["list.txt"])
    (spoiled / "a" / "color" / "00000006.jpg").write_text("junk")
    another = create_workspace(tmp_path / "w", spoiled, "default_rgb")
    with pytest.raises(UserError, match="1 of 2 sequences failed\n.* a: .*6.jpg: not an image"):
        evaluate(another, in_process=True)
    assert [path.stem for path in another.directory.rglob("*.bin")] == ["b_001"]


def test_a_tracker_in_reduced_precision(workspace, tmp_path):
    settings = tracker_settings(workspace, "tiny")
    source = next((workspace.directory / "sequences").glob("*/color")).resolve().parent.parent
    both = create_workspace(
        workspace.directory,
        source,
        "tiny",
        checkpoint=settings["env_srft_checkpoint"],
        benchmark="vot-rgbd2022",
        name="half",
        precision="bfloat16",
    )
    evaluate(both, ["tiny", "half"], in_process=True)
    assert load_tracker(tracker_environment(both, "half")).params.precision == "bfloat16"
    for folder, run in all_runs(both, "half"):
        boxes, _ = read_run(folder, run)
        exact, _ = read_run(Path(str(folder).replace("/half/", "/tiny/")), run)
        assert 0 < np.abs(boxes[1] - exact[1]).max() < 0.1


def test_what_a_job_cannot_do_is_said_here(make_workspace):
    with pytest.raises(UserError, match="blob is no SRFT tracker"):
        evaluate(make_workspace(), in_process=True, gpus=["0"])  # in a process of its own


def test_gpus_are_for_trackers_that_use_them(workspace):
    with pytest.raises(UserError, match=r"trackers.ini: tiny runs on cpu, .* sees it as cuda:0"):
        evaluate(workspace, ["tiny"], in_process=True, gpus=["0"])
