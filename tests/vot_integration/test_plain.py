"""The proof of both protocols: the bundled tracker, the toolkit's own commands, our own figures."""

import json

import pytest

from vot_integration.score import score
from vot_integration.workspace import create_workspace

from .conftest import write_data_set
from .test_runner import STACKS, vot

LENGTHS = {"a": 12, "b": 10, "c": 14, "d": 11, "e": 13, "f": 10}


@pytest.fixture(scope="module")
def sequences(tmp_path_factory):
    """Six sequences with an absence and three anchors each."""
    return write_data_set(tmp_path_factory.mktemp("plain"), LENGTHS)


@pytest.mark.parametrize("benchmark", STACKS)
def test_plain_vot_evaluate_of_the_default_tracker(sequences, tmp_path, benchmark):
    workspace = create_workspace(tmp_path / "w", sequences, "default_rgb", benchmark=benchmark)
    stack = workspace.directory / workspace.benchmark.stack
    # A range of lengths that sequences this short have; ours is read from the same file.
    text = stack.read_text().replace("low: 115", "low: 3").replace("high: 755", "high: 12")
    stack.write_text(text)
    vot(workspace, "evaluate", "default_rgb")
    vot(workspace, "analysis", "default_rgb", "--name", "plain")

    document = json.loads((workspace.directory / "analysis" / "plain.json").read_text())
    (experiment,) = document["results"].values()
    found = score(workspace, "default_rgb")
    assert list(found.per_sequence) == list(LENGTHS)
    figures = list(found.figures.values())
    if benchmark == "depthtrack":
        assert figures == experiment["results"][0][0]
    else:
        theirs = [*experiment["results"][0][0], *experiment["results"][2][0][:2]]
        assert figures == pytest.approx(theirs, abs=1e-12, rel=0)
    assert all(0.1 < figure <= 1 for figure in figures)
