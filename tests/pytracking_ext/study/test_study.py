"""The study: its statistics against hand-worked ones, its plan, one cell, its tables."""

import dataclasses
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from ltr_ext.models.checkpoint import load_network, save_network
from ltr_ext.models.registry import build_network
from ltr_ext.priors import given_prior
from ltr_ext.run_training import base_file
from pytracking_ext.study import cost, priors
from pytracking_ext.study.cell import cell_origin, run_cell
from pytracking_ext.study.cost import cost_table, write_costs
from pytracking_ext.study.data import StudyData
from pytracking_ext.study.plan import BUDGETS, PEERS, QUESTIONS, VARIANTS, Cell, cells, recipe
from pytracking_ext.study.priors import prior_file, write_priors
from pytracking_ext.study.report import attribute_table, question_table, write_report
from pytracking_ext.study.runner import run_each, run_study
from pytracking_ext.study.statistics import Estimate, discoveries, estimate, paired
from srft_plugin import Prior, UserError
from srft_plugin.cli import main

TINY = dataclasses.replace(
    BUDGETS["smoke"], train_sequences=1, train_length=4, test_sequences=1, test_length=3,
    test_pairs=8,
)  # fmt: skip


def test_an_interval_is_students():
    found = estimate([1.0, 2.0, 3.0])
    assert found.mean == 2
    assert found.half == pytest.approx(
        4.302653 / math.sqrt(3), abs=1e-6
    )  # t(0.975, 2) * s / sqrt(n)
    assert math.isnan(estimate([1.0]).half)


def test_p_values_and_what_many_of_them_leave():
    found = estimate([1.0, 2.0, 3.0])
    assert found.p == pytest.approx(0.074180, abs=1e-6)  # t = 2 / (1 / sqrt(3)), 2 degrees
    assert estimate([2.0, 2.0]).p == 0 and estimate([0.0, 0.0]).p == 1
    by_hand = [Estimate(1.0, 0.5, p) for p in (0.01, 0.03, 0.04, 0.9)]
    # The k-th smallest of 4 must be at most 0.05 k / 4: 0.0125, 0.025, 0.0375.
    assert discoveries(by_hand) == 1 and discoveries(by_hand[:3]) == 3 and discoveries([]) == 0


def test_pairing_removes_what_the_seeds_share():
    values, reference = {0: 11.0, 1: 21.0, 2: 31.5}, {0: 10.0, 1: 20.0, 2: 30.0, 3: 99.0}
    found = paired(values, reference)
    assert found.mean == pytest.approx(3.5 / 3)
    assert found.is_real
    assert not paired({0: 1.0, 1: -1.0}, {0: 0.0, 1: 0.0}).is_real


def test_a_plan_has_each_cell_once_and_every_recipe_is_valid():
    budget = BUDGETS["small"]
    plan = list(cells(budget, tuple(QUESTIONS)))
    assert len(plan) == len(set(plan)) == len({cell.path for cell in plan})
    trained = {c.variant for c in plan if VARIANTS[c.variant] is not None}
    assert {c.seed for c in plan if c.variant == "srft"} == set(range(budget.seeds))
    assert {c.seed for c in plan if c.variant == "zero-shot"} == {0}
    assert {recipe(c, budget, "synthetic_rgbd").total_steps for c in plan} == {120, 360}
    for question in QUESTIONS.values():
        assert question.reference in question.variants
        wanted = {v for v in question.variants if VARIANTS[v] is not None}
        assert trained.issuperset(wanted) == question.concerns("depth")


@pytest.mark.parametrize("peer", PEERS)
def test_a_smaller_rate_of_the_backbone_leaves_what_efficient_tuning_adds(peer):
    found = recipe(Cell("depth", f"{peer} unfrozen, backbone lr/3", 0), BUDGETS["small"], "gtot")
    ((pattern, rate),) = found.rates()
    assert pattern.pattern == build_network(f"{peer}_tiny").peft_pattern
    assert rate == recipe(Cell("depth", f"{peer} unfrozen", 0), BUDGETS["small"], "gtot").lr
    assert rate == pytest.approx(3 * found.lr)


def test_a_question_nobody_asked():
    with pytest.raises(UserError, match="kapa.*kappa"):
        list(cells(BUDGETS["small"], ("kapa",)))


def test_questions_that_concern_none_of_the_modalities_are_refused(tmp_path, capsys):
    words = ["--question", "representations", "--modality", "depth", "--out", str(tmp_path / "s")]
    for command in ("run", "report"):
        assert main(["study", command, *words]) == 2
        assert "representations: not asked of depth" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_representations_of_events_are_asked_of_events_alone():
    budget = dataclasses.replace(TINY, modalities=("depth", "event"), seeds=1)
    plan = list(cells(budget, ("representations",)))
    assert {cell.modality for cell in plan} == {"event"}
    assert [cell.variant for cell in plan if VARIANTS[cell.variant]][:2] == ["fft", "srft"]
    assert len(plan) == 8  # zero-shot, fft, and SRFT with six images


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    data = StudyData(tmp_path_factory.mktemp("study"), "depth")
    data.write(TINY)
    return data


def test_seeds_have_training_videos_of_their_own(data):
    first, second = (data.train(seed)[0] for seed in (0, 1))
    assert (first.frames.rgb(0) != second.frames.rgb(0)).any()


def test_event_images_of_another_form(tmp_path):
    budget = dataclasses.replace(TINY, seeds=1)
    images = []
    for form in (None, "time_surface"):
        events = StudyData(tmp_path, "event", form)
        events.write(budget)
        images.append(events.target()[0].frames.aux(1))
    assert (images[0] != images[1]).any()
    assert len(list(tmp_path.glob("event*"))) == 2


def test_a_random_prior_deals_out_the_same_eigenvalues(tmp_path):
    plan = [Cell("depth", "srft, prior by random", seed) for seed in (0, 1)]
    write_priors([*plan, Cell("depth", "srft", 0)], TINY, tmp_path, "cpu")
    found = [Prior.load(prior_file(cell, tmp_path)) for cell in plan]
    assert prior_file(Cell("depth", "srft", 0), tmp_path) is None
    values = [prior.sensitivity() for prior in found]
    assert list(values[0]) == list(values[1]) and values[0] != values[1]
    assert all(prior.metadata["method"] == "random" for prior in found)
    # a recipe takes it: it is of the base tracker's weights
    settings = recipe(plan[0], TINY, "synthetic_rgbd", prior_file(plan[0], tmp_path))
    assert given_prior(settings, load_network(base_file(settings.base)), Prior).spectra


def test_priors_of_another_budget_are_made_anew(tmp_path):
    plan = [Cell("depth", "srft, prior by random", 0)]
    file = prior_file(plan[0], tmp_path)
    for samples in (10, 12):
        settings = (*TINY.settings[:-1], f"prior_samples={samples}")
        budget = dataclasses.replace(TINY, settings=settings)
        write_priors(plan, budget, tmp_path, "cpu")
        assert Prior.load(file).metadata["samples"] == str(samples)
        before = file.stat().st_mtime_ns
        write_priors(plan, budget, tmp_path, "cpu")
        assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize("variant", ["zero-shot", "fft"])
def test_a_cell_is_run_once_and_kept(data, tmp_path, variant):
    cell = Cell("depth", variant, 0)
    result = run_cell(cell, TINY, tmp_path, data, "cpu")
    assert set(result["target"]) == {"test000"} and set(result["rgb"]) == {"test000"}
    assert 0 <= result["target_pairs"] <= 1
    moved = sum(result["moved"].values())
    assert moved == 0 if variant == "zero-shot" else moved > 0
    file = tmp_path / cell.path / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"rgb": {"rgb000": 0.5}}))
    assert run_cell(cell, TINY, tmp_path, data, "cpu")["rgb"] == {"rgb000": 0.5}
    for change in ({"settings": (*TINY.settings, "lr=1e-5")}, {"test_pairs": 9}):
        other = dataclasses.replace(TINY, **change)
        with pytest.raises(UserError, match="result.json is of another study: found (lr|videos)="):
            run_cell(cell, other, tmp_path, data, "cpu")
    file.unlink()  # as if it had been stopped: it is not finished as another one either
    with pytest.raises(UserError, match="origin.json is of another study"):
        run_cell(cell, other, tmp_path, data, "cpu")


def test_videos_of_another_budget_are_not_mixed_in(data):
    with pytest.raises(UserError, match="videos.json: found the videos of another budget"):
        data.write(dataclasses.replace(TINY, train_sequences=2))


def test_videos_of_another_revision_are_not_taken_for_todays(data, monkeypatch):
    monkeypatch.setattr("pytracking_ext.study.data.REVISION", 99)
    with pytest.raises(UserError, match="another budget or revision, .* expected .*99"):
        data.write(TINY)


class Deadly(int):
    """A seed that ends the process that receives it."""

    def __reduce__(self):
        return os._exit, (9,)


def test_cells_that_fail_do_not_stop_the_others(tmp_path):
    """A folder in the way of a result, one with a result that is none, one whose process dies."""
    plan = [
        Cell("depth", "rgb", 0),
        Cell("depth", "zero-shot", 0),
        Cell("depth", "rgb", Deadly(1)),
        Cell("depth", "zero-shot", 1),
    ]
    (tmp_path / plan[0].path / "result.json").mkdir(parents=True)
    (tmp_path / plan[1].path).mkdir(parents=True)
    (tmp_path / plan[1].path / "result.json").write_text("no JSON")
    with pytest.raises(UserError, match="3 of 4 cells failed") as caught:
        run_study(plan, TINY, tmp_path, ["cpu"], 1)
    for cell, reason in zip(plan, ("is a folder", "cannot be read", "has died"), strict=False):
        assert re.search(f"{cell.path}: .*{reason}", str(caught.value))
    assert (tmp_path / plan[3].path / "result.json").is_file()


def test_what_was_not_foreseen_is_in_the_log(tmp_path):
    log = tmp_path / "log"
    ((call, failure),) = run_each(int, [("7",)], ["cpu"], 1, log)  # int("7", "cpu")
    assert call == ("7",) and "cannot be interpreted as an integer" in failure
    assert "Traceback" in log.read_text("utf-8")


BUSY = """
import sys, time
from pathlib import Path
from pytracking_ext.study.runner import run_each

folder = Path(sys.argv[1])

def cell(number, device):
    (folder / str(number)).write_text(device)
    while number == 0 and len(list(folder.glob("[1-3]"))) < 3:
        time.sleep(0.05)

if __name__ == "__main__":
    calls = [(number,) for number in range(4)]
    print([failure for _, failure in run_each(cell, calls, ["a", "b"], 2, folder / "log")])
"""


def test_a_process_keeps_its_device(tmp_path):
    """While the first cell runs, the device of the others is never its own."""
    file = tmp_path / "busy.py"
    file.write_text(BUSY)
    command = [sys.executable, str(file), str(tmp_path)]
    assert subprocess.check_output(command, text=True, timeout=120) == f"{[None] * 4}\n"
    first, *others = ((tmp_path / str(number)).read_text() for number in range(4))
    assert len(set(others)) == 1 and first not in others


def test_shared_priors_are_made_once_for_all_seeds(tmp_path, monkeypatch):
    made, estimate = [], priors.source_prior

    def counted(settings, base, device, method):
        """Quickly made, and called what it would be."""
        made.append(method)
        prior = estimate(settings, base, device)
        return dataclasses.replace(prior, metadata=prior.metadata | {"method": method})

    monkeypatch.setattr(priors, "source_prior", counted)
    plan = [Cell("depth", "srft, prior by lanczos", seed) for seed in (0, 1, 2)]
    write_priors(plan, TINY, tmp_path, "cpu")
    write_priors(plan[1:], TINY, tmp_path, "cpu")
    assert made == ["lanczos"]


def test_a_stopped_cell_goes_on_in_a_folder_that_has_moved(tmp_path, monkeypatch):
    cell, here, there = Cell("depth", "fft", 0), tmp_path / "a", tmp_path / "b"
    videos = StudyData(here / "data", "depth")
    videos.write(TINY)

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pytracking_ext.study.cell.measure", stop)
        with pytest.raises(KeyboardInterrupt):
            run_cell(cell, TINY, here, videos, "cpu")
    (here / cell.path / "network.safetensors").unlink()
    here.rename(there)
    assert run_cell(cell, TINY, there, StudyData(there / "data", "depth"), "cpu")["target"]


STOPPED = """
import sys, time
from pathlib import Path
from pytracking_ext.study.runner import run_each

folder = Path(sys.argv[1])

def cell(number, device):
    (folder / f"begun{number}").touch()
    time.sleep(600)

if __name__ == "__main__":
    list(run_each(cell, [(number,) for number in range(3)], ["cpu"], 1, folder / "log"))
"""


@pytest.mark.skipif(os.name != "posix", reason="signals to a group of processes")
@pytest.mark.parametrize("stop", ["Ctrl-C", "kill"])
def test_cells_end_with_a_stopped_study(tmp_path, stop):
    file = tmp_path / "stopped.py"
    file.write_text(STOPPED)
    study = subprocess.Popen(
        [sys.executable, str(file), str(tmp_path)], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        while not (tmp_path / "begun0").exists():
            assert study.poll() is None
            time.sleep(0.1)
        if stop == "kill":
            study.kill()
        else:
            os.killpg(study.pid, signal.SIGINT)
        study.communicate(timeout=60)  # until no process holds its output open
    finally:
        if study.poll() is None or not study.stdout.closed:
            os.killpg(study.pid, signal.SIGKILL)
    assert not (tmp_path / "begun1").exists()


def a_result(target, rgb):
    return {
        "target": {"a": target, "b": target, "c": target}, "rgb": {"a": rgb}, "target_pairs": 0.5,
        "rgb_pairs": 0.5, "train_pairs": 0.75, "moved": {"x": 0.01, "y": 0.03},
        "train_loss": 1.0,
        "attributes": {"low_light": ["a", "b"], "occlusion": ["a", "b", "c"]},
    }  # fmt: skip


def test_a_table_marks_the_differences_that_are_real(tmp_path):
    results = {}
    for seed in range(3):
        results[Cell("depth", "fft", seed)] = a_result(0.5 + 0.01 * seed, 0.4)
        results[Cell("depth", "srft", seed)] = a_result(0.6 + 0.01 * seed, 0.4 + 0.1 * seed)
    table = question_table(results, "depth", QUESTIONS["sensitivities"])
    rows = dict(table.rows)
    assert list(rows) == ["fft*", "srft"]
    assert rows["srft"][1] == "61.0 ± 2.5 (**+10.0 ± 0.0**)"  # t(0.975, 2) * 1 / sqrt(3)
    assert rows["srft"][2].endswith("(+10.0 ± 24.8)")  # ten times as far apart
    assert rows["fft*"][5] == "25.0 ± 0.0"
    assert rows["fft*"][7] == "0.50 ± 0.00"  # std 0.01 over mean 0.02
    untrained = a_result(0.5, 0.4)
    del untrained["train_loss"]
    results[Cell("depth", "rgb", 0)] = untrained  # for every seed
    results[Cell("depth", "srft:prior", 0)] = a_result(0.9, 0.4)  # one seed so far decides nothing
    rows = dict(question_table(results, "depth", QUESTIONS["sensitivities"]).rows)
    assert rows["rgb"][:2] == ["-", "50.0 (-1.0 ± 2.5)"]
    assert rows["rgb"][5] == "-"  # no training videos, no gap
    assert rows["srft:prior"][:2] == ["1", "90.0 (+40.0)"]
    text = write_report(results, ["sensitivities"], tmp_path).read_text("utf-8")
    assert attribute_table(results, "depth").columns == ["variant", "occlusion (3 videos)"]
    # Against fft: five measures of srft, four of rgb; one seed of srft:prior says nothing.
    assert "compare 9 pairs of numbers, of which 1 are bold" in text and "1 remain." in text
    assert "**+10.0 ± 0.0**" in text and (tmp_path / "depth_sensitivities.png").stat().st_size
    assert "occlusion (3 videos)" in text


def test_a_report_of_few_videos_has_no_table_by_attribute(tmp_path):
    few = a_result(0.5, 0.4) | {"attributes": {"low_light": ["a", "b"]}}
    results = {Cell("depth", "fft", seed): few for seed in range(2)}
    text = write_report(results, ["sensitivities"], tmp_path).read_text("utf-8")
    assert "Do both sensitivities help?" in text and "On which videos?" not in text


def test_a_study_belongs_to_the_weights_of_its_base_wherever_they_lie(tmp_path, capsys):
    cell, budget = Cell("depth", "fft", 0), BUDGETS["smoke"]
    home, moved, other = (
        tmp_path / cell.path,
        tmp_path / "moved.safetensors",
        tmp_path / "other.safetensors",
    )
    shutil.copy(base_file("default"), moved)
    save_network(build_network("ostrack_tiny"), other)
    home.mkdir(parents=True)
    result = a_result(0.5, 0.4) | {"origin": cell_origin(cell, budget)}
    (home / "result.json").write_text(json.dumps(result))
    command = ["study", "report", "--budget", "smoke", "--out", str(tmp_path), "--base"]
    assert main([*command, str(moved)]) == 0
    assert main([*command, str(other)]) == 2
    error = capsys.readouterr().err
    assert "result.json is of another study: found base_sha256=" in error and "--base" in error
    assert main([*command, str(tmp_path / "none")]) == 2
    assert "none: no such file" in capsys.readouterr().err


def test_a_report_shows_what_is_finished(tmp_path, capsys):
    command = ["study", "report", "--budget", "smoke", "--question", "sensitivities"]
    assert main([*command, "--out", str(tmp_path)]) == 2
    assert "`srft study run` makes them" in capsys.readouterr().err
    for variant, seed in (("fft", 0), ("fft", 1), ("srft", 0)):
        home = tmp_path / Cell("depth", variant, seed).path
        home.mkdir(parents=True)
        origin = {"origin": cell_origin(Cell("depth", variant, seed), BUDGETS["smoke"])}
        (home / "result.json").write_text(json.dumps(a_result(0.5, 0.4) | origin))
    assert main([*command, "--out", str(tmp_path)]) == 0
    assert "3 of 10 trainings" in capsys.readouterr().out
    assert "| srft |" in (tmp_path / "study.md").read_text("utf-8")
    command += ["--out", str(tmp_path), "--modality", "event"]
    assert main(command) == 2
    assert main([*command, "--modality", "depth"]) == 0
    assert "3 of 20 trainings" in capsys.readouterr().out


def test_costs_are_of_variants_with_a_step_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "ROUNDS", 1)
    variants = ("rgb", "fft", "MLPs alone", "srft", "srft, 3 x as long", "srft, prior by random")
    write_costs([Cell("depth", variant, 0) for variant in variants], TINY, tmp_path, "cpu")
    rows = dict(cost_table(tmp_path, variants).rows)
    assert list(rows) == ["fft", "MLPs alone", "srft"]
    # Each has two layers with their biases, 192 to 768 and back.
    network = build_network("two_branch_tiny")
    mlps = sum(name.endswith("mlp.fc1") for name, _ in network.named_modules())
    assert rows["MLPs alone"][0] == f"{mlps * (2 * 192 * 768 + 192 + 768) / 1e6:.2f}"
    assert rows["fft"][2] == rows["MLPs alone"][2] == "-" and int(rows["srft"][2]) > 0
    assert all(float(step) > 0 for _, step, _ in rows.values())
    assert cost_table(tmp_path, ["rgb"]) is None and cost_table(tmp_path / "none", ["fft"]) is None
    results = {Cell("depth", "fft", 0): a_result(0.5, 0.4)}
    text = write_report(results, ["sensitivities"], tmp_path).read_text("utf-8")
    assert "| srft |" in text.partition("What does it cost?")[2]
