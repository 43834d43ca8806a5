"""Evaluation by TraX and the toolkit's API: equal to the plain commands, honest after faults."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from vot.tracker import TrackerException

from pytracking_ext.evaluation.datasets import Shard
from srft_plugin.errors import UserError
from vot_integration.analysis import analyse
from vot_integration.guard import evaluation_lock
from vot_integration.results import read_run, write_run
from vot_integration.runner import all_runs, evaluate, part_of
from vot_integration.tasks import Task
from vot_integration.worker import Worker
from vot_integration.workspace import PACKAGES

from .conftest import write_sequence

STACKS = ["depthtrack", "vot-rgbd2022"]


def vot(workspace, *arguments: str) -> str:
    """The toolkit's own command; stdout and stderr."""
    command = [Path(sys.executable).with_name("vot"), *arguments[:1]]
    command += ["--workspace", workspace.directory, *arguments[1:]]
    done = subprocess.run(command, capture_output=True, text=True, cwd=workspace.directory)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def result_files(workspace, tracker: str = "blob") -> dict[str, bytes]:
    """What the toolkit reads, but for the times, which are never the same."""
    root = workspace.directory / "results" / tracker
    files = [p for p in root.rglob("*.*") if p.suffix in (".bin", ".value")]
    files = [path for path in files if not path.name.endswith("_time.value")]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.mark.parametrize("benchmark", STACKS)
def test_equal_to_the_plain_commands(make_workspace, tmp_path, benchmark):
    workspace = make_workspace(benchmark=benchmark)
    vot(workspace, "evaluate", "blob")
    vot(workspace, "analysis", "blob", "--name", "plain")
    plain = result_files(workspace)
    document = json.loads((workspace.directory / "analysis" / "plain.json").read_text())
    (experiment,) = document["results"].values()
    figures = list(analyse(workspace)["blob"].values())

    outcomes = evaluate(workspace, force=True)
    assert result_files(workspace) == plain
    assert sorted(outcome.sequence for outcome in outcomes) == ["a", "b", "c"]
    assert list(analyse(workspace)["blob"].values()) == figures
    if benchmark == "depthtrack":
        assert figures == experiment["results"][0][0]
    else:
        assert figures == [*experiment["results"][0][0], *experiment["results"][2][0][:2]]


@pytest.mark.skipif(
    "SRFT_OTHER_VOT" not in os.environ,
    reason="set SRFT_OTHER_VOT to a Python that has another vot-toolkit, such as 0.9.0",
)
@pytest.mark.parametrize("benchmark", STACKS)
def test_another_toolkit_writes_the_same_bytes(make_workspace, benchmark):
    workspace = make_workspace(benchmark=benchmark)
    evaluate(workspace)
    here, figures = result_files(workspace), analyse(workspace)
    shutil.rmtree(workspace.directory / "results" / "blob")
    for command in ("evaluate", "analysis"):
        done = subprocess.run(
            [os.environ["SRFT_OTHER_VOT"], "-m", "vot", command]
            + ["--workspace", workspace.directory, "blob"],
            env={**os.environ, "PYTHONPATH": str(PACKAGES)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert result_files(workspace) == here
    (document,) = (workspace.directory / "analysis").glob("*.json")
    (experiment,) = json.loads(document.read_text())["results"].values()
    first = experiment["results"][0][0]  # Pr, Re, F or EAO
    assert first == list(figures["blob"].values())[: len(first)]


def test_several_trackers_in_one_workspace(make_workspace):
    make_workspace("blob")
    workspace = make_workspace("still")
    evaluate(workspace)
    figures = analyse(workspace)
    assert list(figures) == ["blob", "still"]
    assert figures["blob"]["F"] > 0.75 > figures["still"]["F"] > 0
    assert analyse(workspace, ["still"])["still"] == figures["still"]


@pytest.mark.parametrize("benchmark", STACKS)
def test_only_what_is_missing_or_damaged_is_made_again(make_workspace, benchmark):
    workspace = make_workspace(benchmark=benchmark)
    evaluate(workspace)
    whole = result_files(workspace)
    assert all(outcome.frames == 0 for outcome in evaluate(workspace))

    spoiled = [(folder, run) for folder, run in all_runs(workspace, "blob")][:3]
    (folder, run), (folder2, run2), (folder3, run3) = spoiled
    os.remove(folder / f"{run.name}_confidence.value")
    os.truncate(folder2 / f"{run2.name}.bin", 40)
    (folder3 / f"{run3.name}_confidence.value").write_bytes(b"\n\xff")
    with pytest.raises(UserError, match="3 runs of blob are missing or damaged"):
        analyse(workspace)
    frames = sum(outcome.frames for outcome in evaluate(workspace))
    assert frames == sum(len(run.frames) - 1 for _, run in spoiled)
    assert result_files(workspace) == whole


@pytest.mark.parametrize(
    ("tracker", "message"),
    [
        ("raises", "RuntimeError: out of luck"),
        ("exits", "b: the tracker's process ended with exit code 7"),
        ("hangs", "did not reply in 3 seconds"),
        ("unloadable", "ValueError: the network is broken"),
    ],
)
def test_failures_are_errors_with_the_reason(make_workspace, tracker, message):
    workspace = make_workspace(tracker, timeout=3)
    with pytest.raises(UserError, match=message) as failure:
        evaluate(workspace)
    failed = ["a", "b", "c"] if tracker == "unloadable" else ["b"]
    assert f"{len(failed)} of 3 sequences failed" in str(failure.value)
    root = workspace.directory / "results" / tracker / "rgbd-unsupervised"
    assert sorted(path.parent.name for path in root.rglob("*.bin")) == sorted(
        set("abc") - set(failed)
    )
    assert not list(root.parent.glob(".staging*"))
    with pytest.raises(UserError, match="missing or damaged"):
        analyse(workspace)


@pytest.mark.parametrize("tracker", ["nans", "prints", "empties"])
def test_what_a_tracker_may_do_wrong_without_harm(make_workspace, tracker):
    workspace = make_workspace(tracker, timeout=10)
    evaluate(workspace)
    folder, run = list(all_runs(workspace, tracker))[1]
    boxes, confidences = read_run(folder, run)
    assert (boxes[1:] == boxes[1]).all()  # a tracker that never moves, fault or not
    assert (confidences[5] == 0) == (tracker == "nans" or tracker == "empties")


def test_missing_depth_is_counted(make_workspace, tmp_path, data_set):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").symlink_to(data_set / "a")
    workspace = make_workspace(sequences=tmp_path / "data")
    depth = workspace.directory / "sequences" / "a" / "depth"
    depth.unlink()
    depth.mkdir()
    for path in sorted((data_set / "a" / "depth").iterdir())[:-3]:
        (depth / path.name).symlink_to(path)
    (outcome,) = evaluate(workspace)
    assert outcome.rgb_only == 3


@pytest.mark.parametrize("benchmark", STACKS)
def test_jobs_and_shards_give_the_same_files(make_workspace, benchmark):
    workspace = make_workspace(benchmark=benchmark)
    evaluate(workspace)
    one = result_files(workspace)
    evaluate(workspace, jobs=2, force=True)
    assert result_files(workspace) == one
    halves = Shard(1, 2), Shard(2, 2)
    parts = [part_of(workspace, half) for half in halves]
    assert sorted(parts[0] + parts[1]) == ["a", "b", "c"]
    for path in workspace.directory.rglob("*.bin"):
        path.unlink()
    for half, sequences in zip(halves, parts, strict=True):
        assert len(evaluate(workspace, shard=half)) == len(sequences)
    assert result_files(workspace) == one


def test_a_job_that_dies_is_a_failure(make_workspace):
    workspace = make_workspace("kills_its_parent")
    with pytest.raises(
        UserError, match=r"b: the evaluation process died \(exit code -9\)"
    ) as failure:
        evaluate(workspace, gpus=["0"])  # one job; `b` is its first sequence
    assert "1 of 3 sequences failed" in str(failure.value)


def test_a_script_that_its_jobs_cannot_import_is_a_failure(make_workspace):
    """Without the guard of multiprocessing, jobs die before they have read their first task."""
    workspace = make_workspace()
    script = workspace.directory / "run.py"
    script.write_text(
        "import sys\nfrom vot_integration.runner import evaluate\nevaluate(sys.argv[1], jobs=2)\n"
    )
    done = subprocess.run([sys.executable, script, workspace.directory], capture_output=True)
    assert b"the evaluation process died (exit code 1)" in done.stderr.splitlines()[-1]


def test_results_of_another_checkpoint_are_not_mixed(make_workspace, tmp_path):
    checkpoint = tmp_path / "network.safetensors"
    checkpoint.write_bytes(b"first")
    workspace = make_workspace(checkpoint=checkpoint)
    evaluate(workspace)
    checkpoint.write_bytes(b"second")
    with pytest.raises(UserError, match="another checkpoint_sha256"):
        evaluate(workspace)
    outcomes = evaluate(workspace, force=True)
    assert all(outcome.frames for outcome in outcomes)
    assert not any(outcome.frames for outcome in evaluate(workspace))


def test_results_without_a_record(make_workspace):
    workspace = make_workspace()
    evaluate(workspace)
    record = workspace.directory / "results" / "blob" / "srft.json"
    record.write_text(record.read_text()[:10])
    with pytest.raises(UserError, match="srft.json is damaged"):
        evaluate(workspace)
    record.unlink()
    with pytest.raises(UserError, match="do not say which checkpoint"):
        evaluate(workspace)
    assert not any(outcome.frames for outcome in evaluate(workspace, adopt=True))


def test_one_evaluation_at_a_time(make_workspace):
    workspace = make_workspace()
    with evaluation_lock(workspace):
        with pytest.raises(UserError, match="another evaluation of .* is running"):
            evaluate(workspace)
        with pytest.raises(UserError, match="another evaluation of .* is running"):
            evaluate(workspace, shard=Shard(1, 2))
    with evaluation_lock(workspace, Shard(1, 2)), evaluation_lock(workspace, Shard(2, 2)):
        with pytest.raises(UserError, match="is running"):
            evaluate(workspace)
        with pytest.raises(UserError, match="is running"):
            evaluate(workspace, shard=Shard(1, 2))


KILLED = """
import os, signal, sys
from vot_integration import toolkit
from vot_integration.runner import evaluate

replace, count = os.replace, 0

def replace_or_die(source, target):
    global count
    count += 1
    if count == 5:
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)

toolkit.os.replace = replace_or_die
evaluate(sys.argv[1])
"""


def test_killed_while_writing_and_resumed(make_workspace):
    workspace = make_workspace(benchmark="vot-rgbd2022")
    evaluate(workspace)
    whole = result_files(workspace)
    for path in workspace.directory.glob("results/blob/baseline"):
        shutil.rmtree(path)
    killed = subprocess.run([sys.executable, "-c", KILLED, workspace.directory])
    assert killed.returncode == -9
    root = workspace.directory / "results" / "blob"
    assert len(list(root.rglob("baseline/*/*.bin"))) == 1  # the second run is not half there
    assert len(list(root.glob(".staging-*"))) == 1
    evaluate(workspace)
    assert result_files(workspace) == whole
    assert not list(root.glob(".staging-*"))


def test_ctrl_c_that_meets_the_toolkits_c_code_ends_the_evaluation(make_workspace, monkeypatch):
    """There the exception is lost, and all that is seen is a tracker that is gone."""
    before = signal.getsignal(signal.SIGINT)

    def execute(self, task, results):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        raise TrackerException("Unable to connect to tracker", tracker=None)

    monkeypatch.setattr(Worker, "_execute", execute)
    workspace = make_workspace()
    with pytest.raises(KeyboardInterrupt):
        evaluate(workspace)
    assert signal.getsignal(signal.SIGINT) is before
    assert not list(workspace.directory.glob("results/blob/.staging-*"))


def test_processes_of_the_same_number_stage_apart(make_workspace, monkeypatch):
    """Those of other containers on one file system."""
    seen = []

    def execute(self, task, results):
        seen.append(results._staging)
        if task.sequence == "a":
            with Worker(workspace) as other:
                other.run(Task("blob", "b"))
            assert results._staging.is_dir()

    monkeypatch.setattr(Worker, "_execute", execute)
    workspace = make_workspace()
    with Worker(workspace) as worker:
        worker.run(Task("blob", "a"))
    assert len(set(seen)) == 2 and not any(path.exists() for path in seen)


@pytest.mark.parametrize("name", ["süß", "100%"])
def test_paths_that_trax_cannot_take_are_an_error(make_workspace, tmp_path, name):
    write_sequence(tmp_path / "data" / name, 4)
    workspace = make_workspace(sequences=tmp_path / "data")
    with pytest.raises(UserError, match=f"{name}: TraX takes no path.*--in-process"):
        evaluate(workspace)


def test_a_run_of_one_frame_is_done(make_workspace, tmp_path):
    write_sequence(tmp_path / "data" / "s", 1)
    workspace = make_workspace(sequences=tmp_path / "data")
    evaluate(workspace)
    assert workspace.runs_to_make("blob", "s", False) == []


def test_jobs_end_with_a_killed_evaluation(make_workspace):
    workspace = make_workspace("waits")
    code = "import sys; from vot_integration.runner import evaluate; evaluate(sys.argv[1], jobs=2)"
    script = workspace.directory / "run.py"
    script.write_text(f'if __name__ == "__main__":\n    {code}\n')
    evaluation = subprocess.Popen([sys.executable, script, workspace.directory])
    until(lambda: len(list(workspace.directory.glob("results/waits/.staging-*"))) == 2)
    jobs = [int(path.name.rpartition("-")[2])
            for path in workspace.directory.glob("results/waits/.staging-*")]  # fmt: skip
    evaluation.kill()
    assert evaluation.wait() == -9
    until(lambda: not any(map(is_alive, jobs)))
    assert not list(workspace.directory.rglob("*.bin"))


def until(condition) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.1)
    raise AssertionError("never true")


def is_alive(process: int) -> bool:
    try:
        return "State:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False


def test_infrared_in_the_place_of_depth(make_workspace, tmp_path):
    source = write_sequence(tmp_path / "data" / "s", 8)
    (source / "depth").rename(source / "ir")
    workspace = make_workspace(sequences=tmp_path / "data")
    (outcome,) = evaluate(workspace)
    assert (outcome.frames, outcome.rgb_only) == (7, 0)


def test_an_analysis_that_fails_is_an_error(make_workspace):
    workspace = make_workspace()
    for folder, run in all_runs(workspace, "blob"):
        boxes = [(1, 1, 5, 5)] * len(run.frames)
        write_run(folder, run, boxes, {"confidence": [None, *[0.5] * (len(boxes) - 1)]})
    analyse(workspace)
    with (workspace.directory / "sequences" / "a" / "groundtruth.txt").open("a") as file:
        file.write("1,2,3,4\n")
    with pytest.raises(UserError, match="analysis failed: List not of the same size 20 != 21"):
        analyse(workspace)


def test_what_is_slow_to_import_waits_until_it_is_used():
    code = "import sys, vot_integration.runner; print(sorted({'vot', 'torch'} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGES
    )
    assert done.stdout == "[]\n", done.stderr
