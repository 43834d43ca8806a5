"""Paths of the user: where they come from, and what is said when they are wrong."""

import importlib
import sys
import types
from pathlib import Path

import pytest

from ltr_ext.admin.environment import (
    environment,
    lookup,
    read_settings,
    set_path,
    settings_file,
)
from srft_plugin.errors import UserError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("SRFT_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("SRFT_DEPTHTRACK_DIR", raising=False)
    monkeypatch.delenv("SRFT_WORKSPACE_DIR", raising=False)


def test_unset_path_says_how_to_set_it():
    with pytest.raises(UserError, match="srft env set depthtrack_dir PATH"):
        environment().get("depthtrack")


def test_set_then_get(tmp_path):
    (tmp_path / "data").mkdir()
    set_path("depthtrack_dir", tmp_path / "data")
    assert environment().get("depthtrack") == tmp_path / "data"
    set_path("workspace_dir", tmp_path / "runs")
    assert environment().results_dir == tmp_path / "runs" / "results"
    assert sorted(read_settings()) == ["depthtrack_dir", "workspace_dir"]


def test_environment_variable_wins_over_the_file(tmp_path, monkeypatch):
    set_path("workspace_dir", tmp_path / "file")
    monkeypatch.setenv("SRFT_WORKSPACE_DIR", str(tmp_path / "variable"))
    assert environment().workspace_dir == tmp_path / "variable"


def test_paths_of_the_host(tmp_path, monkeypatch):
    local = types.ModuleType("ltr.admin.local")
    local.EnvironmentSettings = type("E", (), {"workspace_dir": str(tmp_path / "host")})
    monkeypatch.setitem(sys.modules, "ltr.admin.local", local)
    assert environment().workspace_dir == tmp_path / "host"


def test_the_host_names_the_training_part_of_got10k(tmp_path, monkeypatch):
    local = types.ModuleType("ltr.admin.local")
    monkeypatch.setitem(sys.modules, "ltr.admin.local", local)
    for folder, root in (("got/train", "got"), ("got", "got")):
        paths = {"got10k_dir": str(tmp_path / folder)}
        local.EnvironmentSettings = type("E", (), paths)
        assert lookup("got10k_dir") == str(tmp_path / root)


def test_paths_of_the_host_where_its_own_commands_do_not_read_them(tmp_path, monkeypatch):
    """``run_tracker.py`` imports ``ltr``, but not ``ltr.admin.local``."""
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ltr/admin").mkdir(parents=True)
    (tmp_path / "ltr/__init__.py").touch()
    (tmp_path / "ltr/admin/__init__.py").touch()
    importlib.import_module("ltr")
    set_path("workspace_dir", tmp_path / "ours")
    assert environment().workspace_dir == tmp_path / "ours"
    (tmp_path / "ltr/admin/local.py").write_text(
        "class EnvironmentSettings:\n    workspace_dir = '/theirs'\n"
    )
    importlib.invalidate_caches()
    assert environment().workspace_dir == Path("/theirs")


def host(monkeypatch, **paths):
    local = types.ModuleType("ltr.admin.local")
    local.EnvironmentSettings, local.__file__ = type("E", (), paths), "/x/ltr/admin/local.py"
    monkeypatch.setitem(sys.modules, "ltr.admin.local", local)


def test_pretrained_networks_of_the_host_count_where_they_are(tmp_path, monkeypatch):
    set_path("pretrained_dir", tmp_path / "ours")
    host(monkeypatch, pretrained_networks=str(tmp_path / "theirs"))
    assert environment().pretrained_dir == tmp_path / "ours"
    (tmp_path / "theirs").mkdir()
    assert environment().pretrained_dir == tmp_path / "theirs"


def test_a_wrong_path_names_what_to_edit(tmp_path, monkeypatch):
    def message():
        with pytest.raises(UserError) as error:
            environment().get("depthtrack")
        return str(error.value)

    set_path("depthtrack_dir", tmp_path / "gone")
    ours = f"`srft env set depthtrack_dir PATH`, which writes {settings_file()}"
    assert ours in message()
    host(monkeypatch, depthtrack_dir="")
    assert ours in message()
    host(monkeypatch, depthtrack_dir="/gone")
    assert "set self.depthtrack_dir in /x/ltr/admin/local.py" in message()
    monkeypatch.setenv("SRFT_DEPTHTRACK_DIR", "/gone")
    assert "correct the environment variable SRFT_DEPTHTRACK_DIR" in message()
    monkeypatch.delenv("SRFT_DEPTHTRACK_DIR")
    settings_file().unlink()
    host(monkeypatch)
    assert "is not set; set self.depthtrack_dir in /x/ltr/admin/local.py" in message()


def test_missing_folder_is_named(tmp_path):
    set_path("depthtrack_dir", tmp_path / "gone")
    with pytest.raises(UserError, match="gone is not a folder"):
        environment().get("depthtrack")


def test_unknown_data_set_suggests_the_nearest():
    with pytest.raises(UserError, match="unknown data set 'lashr'; did you mean 'lasher'"):
        environment().get("lashr")


def test_unknown_key():
    with pytest.raises(UserError, match="unknown setting 'depthtrak_dir'"):
        set_path("depthtrak_dir", "/tmp")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'{"depthtrack_dir": 5}'])
def test_broken_settings_file_is_named(content):
    settings_file().parent.mkdir(parents=True)
    settings_file().write_bytes(content)
    with pytest.raises(UserError, match="env.json"):
        environment().get("depthtrack")
