"""Exported files answer what the network answers, and say what a caller must know."""

import importlib.util
import json
import re
import runpy
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from ltr_ext.models.checkpoint import BUNDLED, load_network
from ltr_ext.run_training import NETWORK, run_dir
from pytracking_ext.export import ExportedTracker, export, geometry
from pytracking_ext.parameter.srft import TrackerParameters, from_checkpoint, in_engine
from pytracking_ext.tracker.srft import SRFTTracker
from srft_plugin.cli import main
from srft_plugin.errors import UserError

EXAMPLE = Path(__file__).parents[3] / "examples" / "track_onnx.py"


def crops(network, batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    spec = network.spec
    made = {
        name: torch.randint(
            0, 256, (batch, size, size, spec.in_channels), generator=generator, dtype=torch.uint8
        )
        for name, size in (("template", spec.template_size), ("search", spec.search_size))
    }
    if "template_box" in network.input_names:
        made["template_box"] = 0.25 + 0.5 * torch.rand(batch, 4, generator=generator)
    return made


def reference(network, inputs):
    with torch.inference_mode():
        return ExportedTracker(network, None)(**inputs)


@pytest.mark.parametrize(
    "name, format, changes",  # exporting takes long: few blocks
    [
        ("two_branch_ostrack256", "onnx", {}),
        ("ostrack256_ce", "tensorrt-ready", {"depth": 2, "eliminate_at": (1,)}),
        ("sutrack_t224", "onnx", {"depth": 1}),
        ("sdstrack256", "onnx", {"depth": 2, "eliminate_at": (0,), "cross_at": (1,)}),
        ("untrack256", "onnx", {"depth": 2, "eliminate_at": (1,)}),
        ("upvpt_swintrack_t224", "onnx", {"depths": (1, 1, 2)}),
    ],
)
def test_onnx_runtime_gives_our_boxes(name, format, changes, small, tmp_path, recent_torch):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    network = small(name, **changes)
    path = export(TrackerParameters(network, Path("weights")), tmp_path / "tracker", format)
    assert path.name == "tracker.onnx"
    session = onnxruntime.InferenceSession(str(path))
    for batch in (1, 4):
        inputs = crops(network, batch, batch)
        if format == "tensorrt-ready":
            inputs = {key: value.float() for key, value in inputs.items()}
        found = session.run(None, {key: value.numpy() for key, value in inputs.items()})
        boxes, confidences = reference(network, inputs)
        assert np.abs(found[0] - boxes.numpy()).max() * network.spec.search_size < 0.01
        assert np.abs(found[1] - confidences.numpy()).max() < 1e-5
    record = json.loads(session.get_modelmeta().custom_metadata_map["srft"])
    assert record["network"] == name and record["template_factor"] == 2.0
    assert record["inputs"] == [entry.name for entry in session.get_inputs()]


def test_a_network_for_several_modalities_needs_the_name_of_one(small, tmp_path):
    network = small("untrack256", depth=1)
    network.metadata = {}
    with pytest.raises(UserError, match="for several modalities.*--modality NAME"):
        export(TrackerParameters(network, Path("weights")), tmp_path / "tracker")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "changes", "channels"),
    [
        ("two_branch_ostrack256", {}, "RGB, then auxiliary"),
        ("ostrack256", {}, "RGB"),
        ("ostrack256", {"aux_only": True}, "auxiliary"),
    ],
)
def test_the_record_says_which_images_are_read(small, name, changes, channels):
    parameters = TrackerParameters(small(name, **changes), Path("weights"))
    assert geometry(parameters)["channels"] == channels


def test_weights_of_a_large_network_lie_beside_it(small, tmp_path, monkeypatch, recent_torch):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    module = "torch.onnx._internal.exporter._onnx_program"
    monkeypatch.setattr(f"{module}._LARGE_MODEL_THRESHOLD", 1000)  # 1.5 GB
    network = small("ostrack256", depth=1)
    made = tmp_path / "made"
    for _ in range(2):
        export(TrackerParameters(network, Path("weights")), made / "tracker.onnx")
    assert sorted(path.name for path in made.iterdir()) == ["tracker.onnx", "tracker.onnx.data"]
    made.rename(tmp_path / "moved")
    session = onnxruntime.InferenceSession(str(tmp_path / "moved" / "tracker.onnx"))
    inputs = crops(network, 1)
    found = session.run(None, {key: value.numpy() for key, value in inputs.items()})
    boxes, _ = reference(network, inputs)
    assert np.abs(found[0] - boxes.numpy()).max() * network.spec.search_size < 0.01


def test_a_disk_too_full_for_new_weights_leaves_model_and_weights(
    small, tmp_path, monkeypatch, recent_torch
):
    pytest.importorskip("onnxscript")
    module = "torch.onnx._internal.exporter._onnx_program"
    monkeypatch.setattr(f"{module}._LARGE_MODEL_THRESHOLD", 1000)
    parameters = TrackerParameters(small("ostrack256", depth=1), Path("weights"))
    export(parameters, tmp_path / "tracker.onnx")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with torch.no_grad():
        next(parameters.network.parameters()).add_(1)

    def full(path):
        if path.suffix == ".data":
            raise OSError(28, "No space left on device")

    monkeypatch.setattr("pytracking_ext.export.sync", full)
    with pytest.raises(UserError, match="No space left.*untouched"):
        export(parameters, tmp_path / "tracker.onnx")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_engine_is_not_exported(small, tmp_path):
    parameters = in_engine(TrackerParameters(small("ostrack256"), Path("weights")), "float32")
    with pytest.raises(UserError, match="weights runs in the engine.*without precision"):
        export(parameters, tmp_path / "tracker.onnx")


def test_what_torch_cannot_write_as_onnx_is_an_error(small, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise torch.onnx.OnnxExporterError("unheard of")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    parameters = TrackerParameters(small("ostrack256", depth=1), Path("weights"))
    with pytest.raises(UserError, match="cannot write this network as ONNX"):
        export(parameters, tmp_path / "x", "onnx")
    assert not list(tmp_path.iterdir())


def test_torch_export_takes_any_batch(small, tmp_path):
    network = small("vipt256", depth=2, prompts=2, eliminate_at=(1,))
    path = export(TrackerParameters(network, Path("weights")), tmp_path / "v1.0", "torch-export")
    assert path.name == "v1.0.pt2"
    extra = {"srft.json": ""}
    program = torch.export.load(path, extra_files=extra)
    assert json.loads(extra["srft.json"])["search_size"] == 64
    for batch in (1, 5):
        inputs = crops(network, batch, batch)
        found, expected = program.module()(**inputs), reference(network, inputs)
        assert torch.allclose(found[0], expected[0], atol=1e-5)


@pytest.fixture(scope="module")
def default_file(tmp_path_factory, recent_torch):
    """The bundled tracker, written by the command."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    target = tmp_path_factory.mktemp("export") / "default.onnx"
    assert main(["export", "default_rgb", str(target)]) == 0
    return target


@pytest.mark.parametrize(("context", "format"), [(False, "onnx"), (True, "tensorrt-ready")])
def test_the_example_tracks_as_we_do_without_torch(
    context, format, default_file, tmp_path, monkeypatch, capsys
):
    import cv2

    file, parameters = default_file, from_checkpoint(BUNDLED)
    if context:
        network = load_network(BUNDLED).eval()
        network.spec = replace(network.spec, context=True)
        parameters = TrackerParameters(network, BUNDLED)
        file = export(parameters, tmp_path / "tracker.onnx", format)

    source = EXAMPLE.read_text()
    imported = set(re.findall(r"^import (\w+)", source, re.M))
    assert imported == {"json", "sys", "cv2", "numpy", "onnxruntime"}
    rng = np.random.default_rng(0)
    ground = cv2.resize(rng.integers(0, 255, (12, 16, 3), np.uint8), (160, 120))
    target = cv2.resize(rng.integers(0, 255, (6, 6, 3), np.uint8), (24, 12))
    images = []
    for step in range(8):
        image = ground.copy()
        image[40:52, 10 + 16 * step : 34 + 16 * step] = target[:, : 160 - 10 - 16 * step]
        cv2.imwrite(str(tmp_path / f"{step:04d}.png"), image)
        images.append(image[..., ::-1])
    arguments = [str(file), str(tmp_path / "%04d.png"), "10,40,24,12"]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *arguments])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    found = [
        [float(word) for word in line.split()] for line in capsys.readouterr().out.splitlines()
    ]
    tracker = SRFTTracker(parameters)
    tracker.initialize(images[0], {"init_bbox": (10, 40, 24, 12)})
    assert len(found) == 7
    for (*box, confidence), image in zip(found, images[1:], strict=True):
        answer = tracker.track(image)
        assert np.abs(np.array(box) - answer["target_bbox"]).max() < 0.006  # printed to 0.01
        assert confidence == pytest.approx(answer["object_presence_score"], abs=6e-4)


def test_the_example_says_that_a_video_cannot_be_read(default_file, tmp_path, monkeypatch):
    arguments = [str(default_file), str(tmp_path / "none.mp4"), "10,40,24,12"]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *arguments])
    with pytest.raises(SystemExit, match="no frame: .*none.mp4"):
        runpy.run_path(str(EXAMPLE), run_name="__main__")


@pytest.mark.parametrize(
    ("name", "changes", "given"),
    [
        ("ostrack256", {}, "RGB"),
        ("ostrack256", {"aux_only": True}, "auxiliary"),
        ("two_branch_ostrack256", {}, None),
    ],
)
def test_the_example_reads_the_images_that_the_network_reads(
    name, changes, given, small, tmp_path, monkeypatch, capsys, recent_torch
):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    import cv2

    rng = np.random.default_rng(0)
    for stream in ("RGB", "auxiliary"):
        (tmp_path / stream).mkdir()
        for step in range(3):
            image = rng.integers(0, 255, (60, 80, 3), np.uint8)
            cv2.imwrite(str(tmp_path / stream / f"{step}.png"), image)
    parameters = TrackerParameters(small(name, depth=4, **changes), Path("weights"))
    file = export(parameters, tmp_path / "tracker.onnx")

    def printed(*streams):
        videos = [str(tmp_path / stream / "%d.png") for stream in streams]
        arguments = [str(EXAMPLE), str(file), videos[0], "10,20,24,12", *videos[1:]]
        monkeypatch.setattr(sys, "argv", arguments)
        runpy.run_path(str(EXAMPLE), run_name="__main__")
        return capsys.readouterr().out

    if given:
        assert printed("RGB", "auxiliary") == printed(given)
    else:
        assert len(printed("RGB", "auxiliary").splitlines()) == 2
        with pytest.raises(SystemExit, match="reads RGB, then auxiliary: give it"):
            printed("RGB")


def test_what_is_exported_may_be_the_name_of_a_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SRFT_WORKSPACE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny_rgb").mkdir()
    for source, message in (
        ("tiny_depth", "config 'tiny_depth' has not left"),
        ("tiny_rgb", "unknown tracker parameters 'tiny_rgb'"),
        ("runs/tiny", "no network at"),
        ("default_rbg", "unknown tracker parameters 'default_rbg'; did you mean 'default_rgb'"),
        ("network.pth", "no network at"),
    ):
        assert main(["export", source]) == 2
        assert message in capsys.readouterr().err


def test_a_name_is_exported_to_this_folder(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["export", "default_rgb", "--format", "torch-export"]) == 0
    assert (tmp_path / "default_rgb.pt2").is_file()
    assert "exported: default_rgb.pt2" in capsys.readouterr().out


def test_a_run_with_a_point_in_its_name_is_exported(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SRFT_WORKSPACE_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    network = run_dir("slower_1.5") / NETWORK
    network.parent.mkdir(parents=True)
    shutil.copy(BUNDLED, network)
    assert main(["export", "slower_1.5", "--format", "torch-export"]) == 0
    assert "exported: slower_1.5.pt2" in capsys.readouterr().out


def test_bad_requests(small, tmp_path, monkeypatch):
    parameters = TrackerParameters(small("ostrack256"), Path("weights"))
    with pytest.raises(UserError, match="unknown format 'onx'; did you mean 'onnx'"):
        export(parameters, tmp_path / "x", "onx")
    with pytest.raises(UserError, match="the format onnx has the ending .onnx"):
        export(parameters, tmp_path / "x.pt2", "onnx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs onnx and onnxscript; pip install"):
        export(parameters, tmp_path / "x", "onnx")
    assert not list(tmp_path.iterdir())
