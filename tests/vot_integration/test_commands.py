"""`srft vot` from the command line, by the trackers of `fake_tracker`."""

import argparse
import json

import pytest

from srft_plugin.errors import UserError
from vot_integration.commands import add_commands

from .conftest import HERE


@pytest.fixture
def srft(capsys):
    """Function of the arguments after `srft vot` that gives exit status, stdout and stderr."""
    parser = argparse.ArgumentParser()
    add_commands(parser.add_subparsers())

    def run(*arguments):
        options = parser.parse_args(["vot", *map(str, arguments)])
        status = options.run(options)
        return status, *capsys.readouterr()

    return run


def test_from_data_to_figures(srft, data_set, tmp_path):
    directory = tmp_path / "workspace"
    init = ("init", directory, "--sequences", data_set, "--path", HERE)
    status, out, err = srft(*init, "--tracker", "fake_tracker:blob", "--name", "blob")
    assert (status, err) == (0, "")
    assert "3 sequences, trackers blob" in out
    assert srft(*init, "--tracker", "fake_tracker:still")[0] == 0  # named after its parameters

    status, out, _ = srft("evaluate", directory)
    assert status == 0
    assert "[6/6, 00:00 left]" in out
    assert "6 sequences, 144 frames" in out
    status, out, _ = srft("evaluate", directory)
    assert out.count("done before") == 6

    status, out, err = srft("score", directory)
    assert status == 0
    assert "largest difference 0." in out
    assert "all 50 sequences of depthtrack; here are 3." in out
    assert "fake_tracker-still, per sequence" in out
    warnings = err.splitlines()
    assert len(warnings) == 2 and all("only 72 frames" in warning for warning in warnings)

    status, out, _ = srft("score", directory, "--json")
    table, *per_sequence = json.loads(out)
    assert [row["tracker"] for row in table["rows"][:2]] == ["blob", "fake_tracker-still"]
    assert [len(sequences["rows"]) for sequences in per_sequence] == [3, 3]

    status, out, _ = srft("report", directory)
    assert (status, out) == (0, f"report: {directory}/reports/report.html\n")
    text = (directory / "reports" / "report.html").read_text()
    assert f"<td>blob</td><td>{table['rows'][0]['Pr']:.1f}</td>" in text
    assert "only 72 frames" in text and text.count('<path class="line') == 4  # two plots
    assert (directory / "reports" / "precision_recall.pdf").is_file()

    assert srft("doctor", directory, "--json")[:2] == (0, "[]\n")
    status, out, _ = srft("doctor", directory)
    assert (status, out) == (0, f"{directory}: nothing to complain about\n")
    truth = directory / "sequences" / "a" / "groundtruth.txt"
    truth.write_text(truth.read_text().replace("nan,nan,nan,nan", "0,0,0,0"))
    assert "warning: a: absent frames written as boxes" in srft("score", directory)[2]


def test_failures_reach_the_command_line(srft, data_set, tmp_path):
    directory = tmp_path / "workspace"
    init = ("init", directory, "--sequences", data_set, "--path", HERE)
    srft(*init, "--tracker", "fake_tracker:raises", "--name", "raises")
    with pytest.raises(UserError, match="1 of 3 sequences failed"):
        srft("evaluate", directory)
    with pytest.raises(UserError, match=r"b_001\.bin is missing"):
        srft("score", directory)
    status, out, _ = srft("doctor", directory)
    assert status == 1
    assert "raises: 1 of 3 results are missing or damaged (b_001)" in out


@pytest.fixture
def workspace(srft, data_set, tmp_path):
    """Folder of a workspace with one tracker, blob, that has not run."""
    directory = tmp_path / "workspace"
    init = ("init", directory, "--sequences", data_set, "--path", HERE)
    srft(*init, "--tracker", "fake_tracker:blob", "--name", "blob")
    return directory


def test_a_missing_toolkit_is_named(srft, workspace, monkeypatch):
    srft("evaluate", workspace)
    monkeypatch.setattr("vot_integration.workspace.find_spec", lambda name: None)
    for command in ("evaluate", "score", "report"):
        with pytest.raises(UserError, match=r"toolkit is not installed: pip install -e .*\[vot\]"):
            srft(command, workspace)


def test_scores_of_an_unknown_tracker_are_refused(srft, workspace):
    with pytest.raises(UserError, match="unknown tracker 'blop'; did you mean 'blob'"):
        srft("score", workspace, "blop")


def test_in_process_is_for_srft_trackers(srft, workspace):
    with pytest.raises(UserError, match="blob is no SRFT tracker"):
        srft("evaluate", workspace, "--in-process")


@pytest.mark.parametrize("text", ["1", "a/b", "1/", "3/2"])
def test_shards_are_written_i_of_n(srft, text):
    with pytest.raises(UserError, match=f"no shard '{text}'; expected i/n"):
        srft("evaluate", "somewhere", "--shard", text)
