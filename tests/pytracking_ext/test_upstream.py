"""pytracking as the host: with a stand-in of its contracts, and with a real checkout."""

import collections
import importlib
import os
import pickle
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from ltr_ext.dataset.files import FileFrames
from ltr_ext.dataset.sequence import Sequence
from ltr_ext.recipe import config_names
from ltr_ext.run_training import NETWORK, run_dir
from pytracking_ext.evaluation import upstream
from pytracking_ext.parameter import srft
from srft_plugin.errors import UserError


class StandIn:
    """What pytracking's ``Sequence`` does with its arguments, as far as trackers see it."""

    def __init__(self, name, frames, dataset, ground_truth_rect, target_visible=None):
        self.name, self.frames, self.dataset = name, frames, dataset
        self.ground_truth_rect, self.target_visible = ground_truth_rect, target_visible
        self.init_data = {0: {"bbox": list(ground_truth_rect[0])}}
        self._ensure_start_frame()

    def _ensure_start_frame(self):
        self.frames = self.frames[min(self.init_data) :]

    def frame_info(self, frame_num):
        return {"init_bbox": self.init_data[0]["bbox"]} if frame_num == 0 else {}

    def init_info(self):
        return self.frame_info(0)


@pytest.fixture
def host(monkeypatch):
    """Modules with the contracts of pytracking."""
    data = types.ModuleType("pytracking.evaluation.data")
    data.Sequence = StandIn
    evaluation = types.ModuleType("pytracking.evaluation")
    evaluation.trackerlist = lambda name, param: [(name, param)]
    evaluation.get_dataset = lambda name: [name]
    for module in (types.ModuleType("pytracking"), evaluation, data):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    upstream._sequence_class.cache_clear()
    yield
    upstream._sequence_class.cache_clear()


@pytest.fixture
def sequence(tmp_path):
    names = [f"{i:08d}.png" for i in range(1, 5)]
    frames = FileFrames(tmp_path / "color", names, tmp_path / "depth", names, "depth")
    boxes = np.array([[np.nan] * 4, [1, 2, 30, 40], [np.nan] * 4, [3, 2, 30, 40]])
    return Sequence("bag", frames, boxes, "depth")


def test_the_tracker_is_told_where_the_auxiliary_image_is(host, sequence, tmp_path):
    hosted = upstream.host_sequence(sequence, "depthtrack")
    assert isinstance(hosted, StandIn) and hosted.dataset == "depthtrack"
    assert hosted.frames == [str(tmp_path / "color" / f"0000000{i}.png") for i in (2, 3, 4)]
    info = hosted.init_info()
    assert info == {
        "init_bbox": (1, 2, 30, 40),
        "aux_path": str(tmp_path / "depth" / "00000002.png"),
        "modality": "depth",
    }
    assert isinstance(info["init_bbox"], tuple)
    last = {"aux_path": str(tmp_path / "depth" / "00000004.png"), "modality": "depth"}
    assert hosted.frame_info(2) == last
    np.testing.assert_array_equal(hosted.ground_truth_rect[1], [0, 0, 0, 0])
    assert hosted.target_visible.tolist() == [True, False, True]


def test_sequences_travel_to_worker_processes(host, sequence):
    hosted = upstream.host_sequence(sequence, "depthtrack")
    copy = pickle.loads(pickle.dumps(hosted))
    assert type(copy) is type(hosted) and copy.aux_frames == hosted.aux_frames
    assert b"AuxSequence" not in pickle.dumps(hosted)


def test_frames_that_are_no_files_are_refused(host, white_square):
    with pytest.raises(UserError, match="image files"):
        upstream.host_sequence(white_square(), "x")


@pytest.fixture
def registered(monkeypatch):
    """pytracking's module of data sets, which has a reader for OTB, after the registration."""
    monkeypatch.setattr(sys, "modules", sys.modules.copy())
    monkeypatch.setattr(sys, "meta_path", sys.meta_path.copy())
    for name in ("pytracking", "pytracking.parameter"):
        sys.modules[name] = types.ModuleType(name)
        sys.modules[name].__path__ = []
    package = types.ModuleType("pytracking.parameter.srft")
    package.__path__ = srft.__path__
    sys.modules[package.__name__] = package
    module = types.ModuleType("datasets")
    module.DatasetInfo = collections.namedtuple("DatasetInfo", "module class_name kwargs")
    module.dataset_dict = {"otb": "own"}
    upstream.register(module)
    return module.dataset_dict


def test_registration_keeps_the_hosts_own_readers(registered):
    assert registered["otb"] == "own"
    info = registered["depthtrack"]
    found = getattr(importlib.import_module(info.module), info.class_name)
    assert found is upstream.TestSet and info.kwargs == {"name": "depthtrack"}


def test_experiments_by_name(host):
    trackers, dataset = upstream.experiment("tiny_depth_on_depthtrack")()
    assert trackers == [("srft", "tiny_depth")] and dataset == ["depthtrack"]
    trackers, dataset = upstream.experiment("tuned_on_cube_on_depthtrack")()
    assert trackers == [("srft", "tuned_on_cube")] and dataset == ["depthtrack"]
    with pytest.raises(AttributeError, match="default_rgb_on_depthtrack"):
        upstream.experiment("depthtrack")


def test_every_training_config_is_a_parameter_name(registered):
    for config in config_names():
        found = importlib.import_module(f"pytracking.parameter.srft.{config}")
        assert found.parameters.args == (config,)
    assert "pytracking.parameter.srft.default_rgb" not in sys.modules  # has a file of its own


@pytest.mark.parametrize("name", ["slower", "slower_1.5"])  # `srft train tiny_depth --name NAME`
def test_every_training_run_is_a_parameter_name(registered, base, tmp_path, monkeypatch, name):
    monkeypatch.setenv("SRFT_WORKSPACE_DIR", str(tmp_path))
    network = run_dir(name, tmp_path) / NETWORK
    network.parent.mkdir(parents=True)
    network.write_bytes(base.read_bytes())
    found = importlib.import_module(f"pytracking.parameter.srft.{name}")
    assert found.parameters().checkpoint == network
    own = importlib.import_module("pytracking.parameter.srft.default_rgb")
    assert own.__file__.endswith("default_rgb.py")
    wrong = importlib.import_module("pytracking.parameter.srft.tiny_dept")
    with pytest.raises(UserError, match="did you mean 'tiny_depth'"):
        wrong.parameters()


def test_in_a_real_checkout(shared, base, tmp_path):
    """``run_tracker.py`` with two workers and ``run_experiment.py`` of a linked clone."""
    if "SRFT_PYTRACKING" not in os.environ:
        pytest.skip(
            "set SRFT_PYTRACKING to a pytracking checkout linked by `srft link`, and "
            "SRFT_PYTRACKING_PYTHON to an interpreter that has what pytracking needs"
        )
    python = os.environ.get("SRFT_PYTRACKING_PYTHON", sys.executable)
    run = tmp_path / "checkpoints" / "ltr" / "srft" / "tiny_depth"
    run.mkdir(parents=True)
    (run / "network.safetensors").write_bytes(base.read_bytes())
    environment = os.environ | {
        "SRFT_DEPTHTRACK_DIR": str(shared / "data" / "RGBD"),
        "SRFT_WORKSPACE_DIR": str(tmp_path),
    }

    def host(*command):
        answer = subprocess.run(
            [python, *command], cwd=Path(os.environ["SRFT_PYTRACKING"]) / "pytracking",
            env=environment, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        output = answer.stdout + answer.stderr
        assert answer.returncode == 0 and "Done" in answer.stdout, output
        return output

    runid = str(os.getpid() % 1000)  # a fresh one, as pytracking skips results that exist
    output = host("run_tracker.py", "srft", "tiny_depth", "--dataset_name", "depthtrack",
                  "--threads", "2", "--runid", runid)  # fmt: skip
    assert output.count("FPS: ") == 2 and "FPS: -1" not in output, output
    assert "visp_cube" in output and "visp_dragon" in output
    host("run_experiment.py", "srft", "tiny_depth_on_depthtrack")
