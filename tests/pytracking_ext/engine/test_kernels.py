"""The kernels of a frame against their definitions: on a GPU, or without one interpreted."""

import copy
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from ltr_ext.models.head import MARGIN, boxes_at_peak
from pytracking_ext.engine import Engine, blocks, crop, frame, fused, packed, precision
from pytracking_ext.engine.crop import cut
from pytracking_ext.engine.frame import FramePath, move
from pytracking_ext.parameter.srft import TrackerParameters, in_engine
from pytracking_ext.tracker.srft import SRFTTracker, track_together
from pytracking_ext.tracker.srft.localise import hann_window

pytest.importorskip("triton", reason="Triton is not part of this torch")
from pytracking_ext.engine import kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def by_kernels(monkeypatch):
    """Makes a function run by kernels, whatever the device."""

    def switch(enabled: bool) -> None:
        for module in (crop, frame, fused, precision):
            monkeypatch.setattr(module, "has_kernels", lambda device: enabled)

    monkeypatch.setattr(packed, "available", lambda: False)  # not on a GPU
    switch(True)
    return switch


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64, device=DEVICE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("branches", [None, 1, 2])
def test_sum_and_norm_of_tokens(branches, dtype):
    tokens = 3 * torch.randn(2, 3, 5, 24, device=DEVICE) + 1
    update = None
    if branches:
        bias = torch.randn(branches, 24, device=DEVICE)
        update = torch.randn(2, 3, 5, 24, device=DEVICE).to(dtype), bias
    expected = blocks.add_norm(tokens.clone(), update, 1e-6, dtype)
    found = blocks.add_norm(tokens, update, 1e-6, dtype, by_kernels=True)
    assert found[1].dtype == dtype and found[1].shape == (2, 3, 5, 24 + blocks.ONES)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=1e-6)
    near = {"rtol": 1e-2, "atol": 1e-3} if dtype == torch.bfloat16 else {"rtol": 0, "atol": 1e-5}
    features, ones = found[1].split((24, blocks.ONES), -1)
    torch.testing.assert_close(features, expected[1], **near)
    assert (ones == torch.tensor([1.0] + [0.0] * 7, device=DEVICE)).all()


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_maps_and_boxes_of_the_head(layout):
    raw = (8 * torch.randn(3, 5, 6, 6, device=DEVICE)).to(memory_format=layout)
    raw[0, 0, 2, 3] = raw[0, 0, 4, 1] = 60.0  # of equals, the first
    maps, boxes = kernels.read_maps(raw)
    score, size, offset = raw.split((1, 2, 2), 1)
    score, size = (part.sigmoid().clamp(MARGIN, 1 - MARGIN) for part in (score, size))
    torch.testing.assert_close(maps, torch.cat((score, size, offset), 1))
    torch.testing.assert_close(boxes, boxes_at_peak(score, size, offset))


def test_a_head_that_answers_with_nan_is_not_mended():
    raw = torch.full((1, 5, 4, 4), math.nan, device=DEVICE)
    assert kernels.read_maps(raw)[0].isnan().all()


@pytest.mark.parametrize("context", [False, True])
@pytest.mark.parametrize("channels", [3, 6])
@pytest.mark.parametrize("seed", range(8))
def test_regions_are_cut_as_by_torch(by_kernels, seed, channels, context):
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.integers(0, 256, (90, 130, channels), np.uint8)).to(DEVICE)
    box = numbers(*rng.uniform((-60, -60, 1, 1), (150, 110, 120, 120)))
    if seed == 0:
        box = box.round()  # where halves are rounded
    arguments = image, box, numbers(4.1)[0], 72, context
    by_kernels(False)
    expected, window = cut(*arguments)
    by_kernels(True)
    found, own = cut(*arguments)
    assert torch.equal(own, window)
    level = 1 / (255 * 0.22)  # a sum that ends in a half may be rounded up or down
    assert (found - expected).abs().max() <= 1.01 * level
    assert ((found - expected).abs() > 1e-5).float().mean() < 1e-3


@pytest.mark.parametrize("weight", [None, 0.49])
@pytest.mark.parametrize("seed", range(6))
def test_boxes_move_as_by_torch(by_kernels, seed, weight):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(1, 5, 9, 9, generator=generator).to(DEVICE)
    if seed == 5:
        maps[0, 0, 3, 4] = math.nan
    names = ("score_map", "size_map", "offset_map")
    outputs = dict(zip(names, maps.split((1, 2, 2), 1), strict=True))
    window = numbers(-30 + 40 * seed, -20 - 3 * seed, 80)
    box = numbers(10, 20, 30, 40)
    penalty = hann_window(9).to(DEVICE)
    arguments = outputs, penalty, window, box, (100, 120, 3), 10.0, weight
    by_kernels(False)
    expected = move(*arguments)
    by_kernels(True)
    found = move(*arguments)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6, equal_nan=True)
    assert found[4].isnan() == (seed == 5) and torch.equal(found[:4], box) == (seed == 5)


@torch.inference_mode()
def test_every_family_answers_alike_by_kernels(by_kernels, family_keeping_all, images, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    network = copy.deepcopy(family_keeping_all).to(DEVICE)
    bound = 1e-5 if DEVICE == "cpu" else 1e-3  # a GPU's products add up in another order
    engine = Engine(network)
    for inputs in (images(network, 2, 1), images(network, 1, 2)):
        inputs = [values.to(DEVICE) for values in inputs]
        for _ in range(2):
            answer, expected = engine(*inputs, recorded=False), network(*inputs)
            for name in ("score_map", "size_map", "offset_map", "pred_boxes"):
                torch.testing.assert_close(answer[name], expected[name], rtol=0, atol=bound)


def test_a_target_is_followed_as_by_torch(by_kernels, small):
    network = small("two_branch_ostrack256").to(DEVICE)
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.integers(0, 256, (5, 60, 80, 6), np.uint8))
    found = []
    for enabled in (False, True):
        by_kernels(enabled)
        path = FramePath(Engine(network))
        path.start(images[0], (30, 20, 16, 12))
        found.append(torch.stack([path.step(each) for each in images[1:]]))
    torch.testing.assert_close(*found, rtol=0, atol=0.05)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("two_branch_ostrack256", {}),
        ("ostrack256", {}),
        ("ostrack256", {"aux_only": True}),
        ("sutrack_t224", {}),
        ("swintrack_t224", {}),
    ],
    ids=["two branches", "RGB", "second camera", "several templates", "equal margin"],
)
def test_trackers_cut_their_frames_on_the_device(by_kernels, small, name, changes):
    network = small(name, **changes).to(DEVICE)
    options = (
        {"update_interval": 1, "update_confidence": -1.0} if network.spec.templates > 1 else {}
    )
    parameters = TrackerParameters(network, Path("weights"), DEVICE, **options)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (height, 80, 3), np.uint8) for height in (60, 60, 60, 70)]
    found = []
    for enabled in (False, True):
        by_kernels(enabled)
        pair = [SRFTTracker(in_engine(parameters, "float32")) for _ in range(2)]
        for own, image in zip(pair, images[2:], strict=True):
            own.initialize(image, {"aux": image[::-1], "init_bbox": (30, 20, 16, 12)})
        answers = []
        for index in (1, 2):
            for own in pair:
                own.box = (20.0 + 3 * index, 21.0, 16.0, 12.0)
            infos = [{}, {"aux": images[3][:, ::-1]}]  # without, the RGB image stands in
            with ThreadPoolExecutor(2) as readers:
                answers += track_together(pair, [images[index], images[3]], infos, readers.map)
        assert [own.aux_missing for own in pair] == ([2, 0] if own.spec.reads_aux else [0, 0])
        found.append([[*a["target_bbox"], a["object_presence_score"]] for a in answers])
    assert np.abs(np.subtract(*found)).max() < 0.5


@torch.inference_mode()
def test_the_kernels_leave_a_compiled_network_in_one_piece(by_kernels, small, images):
    network = small("two_branch_ostrack256").to(DEVICE)
    engine = Engine(network)
    inputs = [values.to(DEVICE) for values in images(network, 1, 1)]
    expected = {name: values.clone() for name, values in engine(*inputs).items()}
    whole = torch.compile(engine._run, backend="eager", fullgraph=True)
    for name, values in whole(*inputs).items():
        torch.testing.assert_close(values, expected[name])


def test_a_gpu_whose_kernels_do_not_run_is_told_once(monkeypatch, caplog):
    def fail(*arguments):
        raise OSError("the cache cannot be written")

    monkeypatch.setattr(precision, "triton_lacks", lambda: None)
    monkeypatch.setattr(kernels, "add_norm", fail)
    monkeypatch.setattr(torch, "zeros", lambda *shape, device: None)
    precision._has_kernels.cache_clear()
    try:
        assert not precision.has_kernels(torch.device("cpu")) and not caplog.records
        for _ in range(2):
            assert not precision.has_kernels(torch.device("cuda:7"))
    finally:
        precision._has_kernels.cache_clear()
    (record,) = caplog.records
    assert record.message == (
        "the engine runs without its kernels on cuda:7: it needs kernels that compile here (the "
        "cache cannot be written)"
    )


@pytest.mark.parametrize("before", [True, False])
def test_float32_on_a_gpu_is_exact_and_leaves_the_setting(monkeypatch, before):
    backend, name, exact, usual = torch.backends.cudnn, "allow_tf32", False, True
    if hasattr(backend, "conv"):
        backend, name, exact, usual = backend.conv, "fp32_precision", "ieee", "tf32"
    own = usual if before else exact
    kept = getattr(backend, name)
    setattr(backend, name, own)
    try:
        with precision.exact_convolutions(True):
            assert getattr(backend, name) == exact
        assert getattr(backend, name) == own
        with precision.exact_convolutions(False):
            assert getattr(backend, name) == own
    finally:
        setattr(backend, name, kept)


def test_the_setting_stays_until_the_last_engine_is_out():
    backend, name = torch.backends.cudnn, "allow_tf32"
    if hasattr(backend, "conv"):
        backend, name = backend.conv, "fp32_precision"
    before = getattr(backend, name)
    first, second = precision.exact_convolutions(True), precision.exact_convolutions(True)
    first.__enter__()
    exact = getattr(backend, name)
    second.__enter__()
    first.__exit__(None, None, None)
    assert getattr(backend, name) == exact != before
    second.__exit__(None, None, None)
    assert getattr(backend, name) == before


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from pytracking_ext.engine import kernels

INTEGERS = ("rows", "dim", "width", "cells", "grid", "sample", "channel", "cell_stride", "height",
            "channels", "size")
DOUBLES = ("box", "factor", "window", "moved")
FLOATS = ("eps", "margin", "share")
KINDS = (dict.fromkeys(INTEGERS, "i32") | dict.fromkeys(DOUBLES, "*fp64")
         | dict.fromkeys(FLOATS, "fp32") | {"frame": "*u8", "update": "*bf16", "normed": "*bf16"})
CONSTANTS = {"CONTEXT": True, "UPDATES": True, "MIXED": True, "BLOCK": 1024, "COLUMNS": 64,
             "CHANNELS": 8}
for name in ("_add_norm", "_read_maps", "_cut", "_move"):
    kernel = getattr(kernels, name)
    own = [argument for argument in kernel.arg_names if argument in CONSTANTS]
    signature = {argument: "constexpr" if argument in own else KINDS.get(argument, "*fp32")
                 for argument in kernel.arg_names}
    source = ASTSource(kernel, signature, {argument: CONSTANTS[argument] for argument in own})
    for capability in (80, 90):
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        print(name, capability, len(made.asm["cubin"]), "sqrt.rn.f64" in made.asm["ptx"])
"""


def test_the_kernels_compile_for_gpus_that_are_not_there(compiling):
    """What the interpreter takes, the compiler need not."""
    lines = compiling(COMPILE)
    assert len(lines) == 8 and all(int(size) > 0 for _, _, size, _ in lines)
    # Whether a side is rounded up must not depend on the device.
    assert [exact for name, _, _, exact in lines if name == "_cut"] == ["True"] * 2
