"""The `srft` command: help, suggestions, exit codes."""

import argparse
import importlib.metadata
import json
import platform
import re
import subprocess
import sys

import pytest
import torch

from srft_plugin.cli import build_parser, host, main
from srft_plugin.cli.demo import SIZES, TRACKERS, Demo
from srft_plugin.cli.demo_report import scores_table
from srft_plugin.errors import UserError, report_errors


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SRFT_HOME", str(tmp_path / "home"))


def commands() -> dict[str, argparse.ArgumentParser]:
    actions = build_parser()._actions
    return next(a.choices for a in actions if isinstance(a, argparse._SubParsersAction))


def test_every_command_has_a_help_text_and_something_to_run(capsys):
    for name, parser in commands().items():
        assert parser.description, name
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
        assert f"srft {name}" in capsys.readouterr().out


def test_unknown_command_suggests_the_nearest(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["trian"])
    assert stop.value.code == 2
    assert "did you mean 'train'?" in capsys.readouterr().err


def test_unknown_option_is_an_error(capsys):
    with pytest.raises(SystemExit):
        main(["train", "tiny_depth", "--lr", "3"])
    assert "unrecognized arguments: --lr" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", "tiny_depth", "--name", "a", "lr=1e-4", "kappa"])
    assert capsys.readouterr().err.endswith("unrecognized arguments: kappa\n")


@pytest.mark.parametrize(
    ("words", "near"),
    [
        (["train", "tiny_depth", "--worksapce", "runs"], "--workspace"),
        (["train", "tiny_depth", "--nmae=a", "lr=1e-4"], "--name"),
        (["evaluate", "tiny_depth", "--datset_name", "depthtrack"], "--dataset_name"),
        (["vot", "evaluate", "work", "--in-proccess"], "--in-process"),
        (["plot", "training", "run", "--uot", "a.png"], "--out"),
    ],
)
def test_unknown_option_suggests_the_nearest(words, near, capsys):
    """Also where a required one is missing for it."""
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert capsys.readouterr().err.endswith(f"did you mean {near!r}?\n")


def test_options_may_be_cut_short(capsys):
    assert main(["vot", "evaluate", "nowhere", "--in-proc"]) == 2
    assert "no workspace" in capsys.readouterr().err


def test_errors_of_the_user_are_one_line_and_status_2(capsys):
    assert main(["train", "tiny_depht"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: unknown config 'tiny_depht'; did you mean 'tiny_depth'?")
    assert error.count("\n") == 1


def test_a_file_that_the_system_refuses_is_one_line_and_status_2(tmp_path, capsys):
    link = tmp_path / "a.txt"
    link.symlink_to(link)
    assert report_errors(link.read_bytes) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {link}: Too many levels of symbolic links;")
    assert error.count("\n") == 1


@pytest.mark.parametrize(("raised", "status"), [(KeyboardInterrupt, 130), (BrokenPipeError, 141)])
def test_interrupted_commands_end_without_a_traceback(raised, status):
    code = f"""
import sys
from srft_plugin.errors import report_errors
def command():
    raise {raised.__name__}
sys.exit(report_errors(command))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == status and "Traceback" not in done.stderr


@pytest.mark.parametrize("device", ["nodev", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_an_error(device, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["track", "--rgb", "a.mp4", "--init", "1,2,3,4", "--device", device])
    assert stop.value.code == 2 and f"'{device}'" in capsys.readouterr().err


def test_help_and_settings_do_not_wait_for_torch():
    script = (
        "import sys; from srft_plugin.cli import build_parser, main; build_parser(); "
        "main(['env', 'show']); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_env_set_and_show(tmp_path, capsys, monkeypatch):
    assert main(["env", "set", "workspace_dir", str(tmp_path / "runs")]) == 0
    assert f"workspace_dir: {tmp_path / 'runs'} (not there yet)\n" in capsys.readouterr().out
    assert main(["env", "set", "workspace_dir", str(tmp_path)]) == 0
    assert f"workspace_dir: {tmp_path}\n" in capsys.readouterr().out
    assert main(["env", "set", "workspace_dir", str(tmp_path / "runs")]) == 0
    assert main(["env", "show"]) == 0
    assert f"workspace_dir: {tmp_path / 'runs'}" in capsys.readouterr().out
    assert main(["env", "show", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["workspace_dir"] == str(tmp_path / "runs")
    assert shown["results_dir"] == str(tmp_path / "runs" / "results")
    assert main(["env", "set", "lasher_dir", str(tmp_path / "file")]) == 0
    monkeypatch.setenv("SRFT_LASHER_DIR", "/variable")
    capsys.readouterr()
    assert main(["env", "show"]) == 0
    assert "lasher_dir: /variable\n" in capsys.readouterr().out  # the path that counts
    assert main(["env", "show", "lasher_dir"]) == 0
    assert capsys.readouterr().out == "lasher_dir: /variable\n"
    assert main(["env", "show", "visevent_dir"]) == 2
    assert "visevent_dir is not set; set it by `srft env set" in capsys.readouterr().err
    assert main(["env", "show", "lasherdir"]) == 2
    assert "did you mean 'lasher_dir'" in capsys.readouterr().err
    assert main(["env", "set", "workspace_dir"]) == 2


def test_doctor_says_what_the_kernels_of_a_gpu_need(monkeypatch):
    for name, value in (("is_available", True), ("device_count", 1), ("is_bf16_supported", True),
                        ("get_device_name", "H200")):  # fmt: skip
        monkeypatch.setattr(torch.cuda, name, lambda *_, value=value: value)
    monkeypatch.setattr("srft_plugin.kernels.triton_lacks", lambda: "a C compiler; install gcc")
    (check,) = host._device()
    assert check == (
        "GPU", "1 x H200, bf16", "for the fast kernels it needs a C compiler; install gcc"
    )  # fmt: skip


def test_doctor_names_the_extra_of_what_is_missing(monkeypatch):
    """All packages that setup.py has in extras for users, and no other extra."""

    def version(name):
        if name in host.PACKAGES:
            raise importlib.metadata.PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(importlib.metadata, "version", version)
    remedies = {name: remedy for name, found, remedy in host._packages() if found == "missing"}
    assert remedies["torch"] == "install it; needed for everything"
    assert remedies["aedat"].startswith('install it with pip install -e ".[events]"; needed for')
    wanted = {
        re.match(r"[\w-]+", requirement)[0]: re.search("extra == [\"'](\\w+)", requirement)[1]
        for requirement in importlib.metadata.requires("srft")
        if re.search("extra == [\"'](?!docs|test)", requirement)
    }
    named = {name: extra for name, (_, extra) in host.PACKAGES.items() if extra}
    assert named == {n: e for n, e in wanted.items() if n != "attributee"}  # vot-toolkit's own


def test_doctor_reports_what_is_there_and_what_is_not(tmp_path, capsys):
    for name in ("ltr/run_training.py", "ltr/admin/local.py", "pytracking/evaluation/datasets.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert main(["doctor", str(tmp_path), "--json"]) == 0
    report = {row["check"]: row for row in json.loads(capsys.readouterr().out)}
    assert report["torch"]["found"][0].isdigit() and not report["torch"]["remedy"]
    assert report["system"]["found"] == platform.platform()
    assert report["depthtrack_dir"]["remedy"].startswith("srft env set depthtrack_dir")
    assert report["pretrained_dir"]["found"].endswith("pretrained")
    assert report[f"link of {tmp_path}"]["found"] == "0 of 5 files"
    assert "ltr/admin/local.py" not in report
    assert "set your paths" in report["pytracking/evaluation/local.py"]["remedy"]
    assert main(["doctor", str(tmp_path / "ltr")]) == 1
    assert "is no pytracking checkout" in capsys.readouterr().out
    assert main(["doctor"]) == 0
    (unset,) = [line for line in capsys.readouterr().out.splitlines() if "not set" in line]
    assert "depthtrack_dir, cdtb_dir" in unset and "srft env set KEY PATH" in unset


class TestDemoFolder:
    """`srft demo` works in a folder of its own and destroys nothing else."""

    def demo(self, folder):
        return Demo(folder, SIZES["smoke"], 0, "cpu")

    def test_new_and_continued(self, tmp_path):
        for _ in range(2):
            self.demo(tmp_path / "demo").claim_folder("smoke", fresh=False)

    def test_folder_of_somebody_else(self, tmp_path):
        (tmp_path / "thesis.tex").touch()
        for fresh in (False, True):
            with pytest.raises(UserError, match="not empty and not a demo"):
                self.demo(tmp_path).claim_folder("smoke", fresh)
            (tmp_path / "demo.json").write_text('{"mine": 1}' if fresh else '{"si')
        with pytest.raises(UserError, match="not empty and not a demo"):
            self.demo(tmp_path).claim_folder("smoke", fresh=True)
        assert (tmp_path / "thesis.tex").exists()

    def test_other_settings(self, tmp_path):
        self.demo(tmp_path / "demo").claim_folder("smoke", fresh=False)
        with pytest.raises(UserError, match="other settings"):
            self.demo(tmp_path / "demo").claim_folder("default", fresh=False)
        self.demo(tmp_path / "demo").claim_folder("default", fresh=True)

    def test_a_file_and_a_damaged_demo_are_plain_errors(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(UserError, match="file is no folder; choose another --out"):
            self.demo(tmp_path / "file").claim_folder("smoke", fresh=False)
        (tmp_path / "demo").mkdir()
        (tmp_path / "demo/demo.json").write_bytes(b'{"si\xff')
        with pytest.raises(UserError, match="holds a demo with other settings"):
            self.demo(tmp_path / "demo").claim_folder("smoke", fresh=False)
        self.demo(tmp_path / "demo").claim_folder("smoke", fresh=True)


def test_table_shows_forgetting_against_the_rgb_tracker():
    scores = {
        name: {"Pr": 0.5, "Re": 0.4, "F": 0.444, "rgb_iou": 0.6 - 0.1 * i, "frames_per_second": 30}
        for i, name in enumerate(TRACKERS)
    }
    table = scores_table(scores)
    change = table.columns.index("change") - 1  # the first column is the label's
    changes = [cells[change] for _, cells in table.rows]
    assert changes == ["+0.000", "-0.100", "-0.200", "-0.300"]


def test_the_demo_prints_its_scores_for_programs(tmp_path, capsys, monkeypatch):
    score = {"Pr": 0.5, "Re": 0.4, "F": 0.444, "rgb_iou": 0.6, "frames_per_second": 30}

    def run(_):
        print("what trains: ...")
        return dict.fromkeys(TRACKERS, score)

    monkeypatch.setattr(Demo, "run", run)
    monkeypatch.setattr("srft_plugin.cli.demo_report.write_report", lambda *_: "report.html")
    monkeypatch.setattr("vot_integration.workspace.require_toolkit", lambda: None)
    assert main(["demo", "--out", str(tmp_path / "demo"), "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["scores"]["srft"] == score
    assert (tmp_path / "demo/scores.json").read_text() == printed.out
    assert "what trains" in printed.err


def test_convert_and_inspect(tmp_path, capsys):
    from ltr_ext.models.checkpoint import BUNDLED

    target = str(tmp_path / "two.safetensors")
    assert main(["convert", str(BUNDLED), target, "--to", "two_branch"]) == 0
    assert main(["inspect", target]) == 0
    assert "two_branch_tiny" in capsys.readouterr().out
    assert main(["inspect", target, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["network"], found["search_size"]) == ("two_branch_tiny", 128)
    assert found["parts"]["backbone.patch_embed_rgb"] == {"tensors": 14, "values": 149_088}
    assert main(["inspect", str(tmp_path / "none.pth")]) == 2
    assert "none.pth" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_a_shell_gets_its_completion(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert "srft" in script and "sensitivity" in script and "--in-process" in script
