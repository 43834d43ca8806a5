"""The kernels of a frame against their definitions: on a GPU, or without one interpreted."""

import copy
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from ltr_ext.models.head import MARGIN, boxes_at_peak
from pytracking_ext.engine import Engine, blocks, crop, frame, fused, packed
from pytracking_ext.engine.crop import cut
from pytracking_ext.engine.frame import FramePath, move
from pytracking_ext.parameter.srft import TrackerParameters, in_engine
from pytracking_ext.tracker.srft import SRFTTracker, localise, tracker

pytest.importorskip("triton", reason="Triton is not part of this torch")
from pytracking_ext.engine import kernels

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture
def by_kernels(monkeypatch):
    """Makes a function run by kernels, whatever the device."""

    def switch(enabled: bool) -> None:
        for module in (blocks, crop, frame, fused, localise, tracker):
            monkeypatch.setattr(module, "has_kernels", lambda device: enabled)

    monkeypatch.setattr(packed, "available", lambda: False)  # not on a GPU
    switch(True)
    return switch


def numbers(*values):
    return torch.tensor(values, dtype=torch.float64, device=DEVICE)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("branches", [None, 1, 2])
def test_sum_and_norm_of_tokens(by_kernels, branches, dtype):
    tokens = 3 * torch.randn(2, 3, 5, 24, device=DEVICE) + 1
    update = None
    if branches:
        bias = torch.randn(branches, 24, device=DEVICE)
        update = torch.randn(2, 3, 5, 24, device=DEVICE).to(dtype), bias
    by_kernels(False)
    expected = blocks.add_norm(tokens.clone(), update, 1e-6, dtype)
    by_kernels(True)
    found = blocks.add_norm(tokens, update, 1e-6, dtype)
    assert found[1].dtype == dtype and found[1].shape == (2, 3, 5, 24 + blocks.ONES)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-6, atol=1e-6)
    near = {"rtol": 1e-2, "atol": 1e-3} if dtype == torch.bfloat16 else {"rtol": 0, "atol": 1e-5}
    torch.testing.assert_close(found[1], expected[1], **near)
    assert found[1][..., -blocks.ONES :].unique().tolist() == [0, 1]


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


@pytest.mark.parametrize("channels", [3, 6])
@pytest.mark.parametrize("seed", range(8))
def test_regions_are_cut_as_by_torch(by_kernels, seed, channels):
    rng = np.random.default_rng(seed)
    image = torch.from_numpy(rng.integers(0, 256, (90, 130, channels), np.uint8)).to(DEVICE)
    box = numbers(*rng.uniform((-60, -60, 1, 1), (150, 110, 120, 120)))
    if seed == 0:
        box = box.round()  # where halves are rounded
    arguments = image, box, numbers(4.1)[0], 72
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
def test_boxes_are_found_and_move_as_by_torch(by_kernels, seed, weight):
    generator = torch.Generator().manual_seed(seed)
    maps = torch.rand(3, 5, 9, 9, generator=generator).to(DEVICE)
    outputs = dict(zip(localise.MAPS, maps.split((1, 2, 2), 1), strict=True))
    penalty = localise.hann_window(9).to(DEVICE)
    by_kernels(False)
    expected = localise.localise(outputs, penalty, weight)
    by_kernels(True)
    for found, known in zip(localise.localise(outputs, penalty, weight), expected, strict=True):
        torch.testing.assert_close(found, known)
    if seed == 5:
        maps[0, 0, 3, 4] = math.nan
    window = numbers(-30 + 40 * seed, -20 - 3 * seed, 80)
    box = numbers(10, 20, 30, 40)
    first = {name: values[:1] for name, values in outputs.items()}
    arguments = first, penalty, window, box, (100, 120, 3), 10.0, weight
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
    engine.use_graph(False)
    for inputs in (images(network, 2, 1), images(network, 1, 2)):
        inputs = [values.to(DEVICE) for values in inputs]
        for _ in range(2):
            answer, expected = engine(*inputs), network(*inputs)
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


@pytest.mark.parametrize("name", ["two_branch_ostrack256", "ostrack256"])
def test_the_tracker_cuts_its_frames_on_the_device(by_kernels, small, name):
    parameters = TrackerParameters(small(name).to(DEVICE), Path("weights"), DEVICE)
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 60, 80, 3), np.uint8)
    found = []
    for enabled in (False, True):
        by_kernels(enabled)
        own = SRFTTracker(in_engine(parameters, "float32"))
        assert own._cuts_on_device == enabled
        own.initialize(images[0], {"aux": images[1], "init_bbox": (30, 20, 16, 12)})
        answers = []
        for index in (1, 2):
            own.box = (20 + 3 * index, 21, 16, 12)
            info = {"aux": images[index + 1]} if index == 1 else {}  # then RGB stands in
            answer = own.track(images[index], info)
            answers.append([*answer["target_bbox"], answer["object_presence_score"]])
        assert own.aux_missing == (1 if own.spec.reads_aux else 0)
        found.append(np.array(answers))
    assert np.abs(found[0] - found[1]).max() < 0.5


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
CONSTANTS = {"UPDATES": True, "MIXED": True, "BLOCK": 1024, "COLUMNS": 64, "CHANNELS": 8}
for name in ("_add_norm", "_read_maps", "_cut", "_locate", "_move"):
    kernel = getattr(kernels, name)
    own = [argument for argument in kernel.arg_names if argument in CONSTANTS]
    signature = {argument: "constexpr" if argument in own else KINDS.get(argument, "*fp32")
                 for argument in kernel.arg_names}
    source = ASTSource(kernel, signature, {argument: CONSTANTS[argument] for argument in own})
    for capability in (80, 90):
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        print(name, capability, len(made.asm["cubin"]), "sqrt.rn.f64" in made.asm["ptx"])
"""


def test_the_kernels_compile_for_gpus_that_are_not_there():
    """What the interpreter takes, the compiler need not."""
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    command = [sys.executable, "-c", COMPILE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) == 10 and all(int(size) > 0 for _, _, size, _ in lines)
    # Whether a side is rounded up must not depend on the device.
    assert [exact for name, _, _, exact in lines if name == "_cut"] == ["True"] * 2
