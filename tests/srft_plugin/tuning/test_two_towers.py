"""What TRACER's paper claims of its teacher, on the toy of ``benchmarks/two_towers.py``."""

from pathlib import Path

import pytest

TOY = Path(__file__).resolve().parents[3] / "benchmarks" / "two_towers.py"
STEPS = 120


@pytest.fixture(scope="module")
def runs(load_script):
    toy = load_script(TOY)
    network, views = toy.pretrained(0, STEPS)
    settings = {"none": ("wma", 0.0), "ema": ("ema", 0.3), "wma": ("wma", 0.3)}
    return {name: toy.fine_tuned(network, views, STEPS, *s) for name, s in settings.items()}


def test_the_ema_teacher_joins_the_student_and_the_wma_teacher_does_not(runs):
    assert runs["ema"].distances[-1] < 0.06
    assert runs["wma"].distances[-1] > 0.2
    assert min(runs["wma"].distances) == runs["wma"].distances[-1]  # it, too, comes nearer


def test_the_wma_teacher_keeps_more_of_what_the_task_does_not_use(runs):
    kept = {name: run.kept for name, run in runs.items()}
    assert kept["wma"] > kept["ema"] + 0.1 > kept["none"] + 0.1


def test_what_is_kept_costs_some_of_the_task(runs):
    learnt = {name: run.learnt for name, run in runs.items()}
    assert learnt["none"] >= learnt["ema"] >= learnt["wma"] > 0.5
