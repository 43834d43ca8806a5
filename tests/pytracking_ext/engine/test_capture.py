"""A frame on a GPU, without one: fake tensors have a device and a shape, and no values."""

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch._subclasses.fake_tensor import unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ltr_ext.data import normalise
from pytracking_ext.engine import Engine, crop, frame, fused, packed
from pytracking_ext.engine.frame import FramePath

GPU = torch.device("cuda:0")
COPYING = ("copy", "aten.to.")


class OnDeviceAlone(TorchDispatchMode):
    """Refuses what a CUDA graph cannot record: reading values, and copies from the host."""

    def __init__(self, waits):
        super().__init__()
        self.waits = waits

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        tensors = [t for t in tree_leaves((arguments, named)) if isinstance(t, Tensor)]
        # A number is written into the kernel's arguments.
        copies = any(name in str(function) for name in COPYING)
        from_host = copies and any(t.is_cpu for t in tensors)
        by_mask = "index" in str(function) and any(t.dtype == torch.bool for t in tensors)
        assert not (from_host or by_mask or self.waits(function)), f"{function} cannot be recorded"
        return function(*arguments, **(named or {}))


@pytest.fixture
def on_gpu(recent_torch, monkeypatch):
    """Makes an engine of a network whose tensors say that they are on a GPU."""
    monkeypatch.setattr(packed, "available", lambda: False)  # not on a GPU
    for module in (crop, frame, fused):
        monkeypatch.setattr(module, "has_kernels", lambda device: True)

    def statistics(images: int, device: torch.device) -> tuple[Tensor, Tensor]:
        return tuple(torch.ones(3 * images, 1, 1, device=device) for _ in range(2))

    for module in (normalise, crop):
        monkeypatch.setattr(module, "statistics", statistics)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:

        def make(network: nn.Module) -> Engine:
            with unset_fake_temporarily():
                engine = Engine(network)
            for module in engine.modules():
                for name, value in [*module.named_parameters(recurse=False)]:
                    moved = mode.from_tensor(value.detach()).to(GPU)
                    setattr(module, name, nn.Parameter(moved, requires_grad=False))
                for name, value in [*module.named_buffers(recurse=False)]:
                    setattr(module, name, mode.from_tensor(value).to(GPU))
            engine.device = GPU
            return engine

        yield make


def test_all_of_a_frame_can_be_recorded(family, on_gpu, waits):
    path = FramePath(on_gpu(family))
    images = torch.zeros(90, 130, family.spec.in_channels, dtype=torch.uint8).to(GPU)
    path.start(images, (30.0, 20.0, 40.0, 30.0))
    path.step(images)  # learns the template
    with torch.inference_mode(), OnDeviceAlone(waits):
        answer = path._step(images, path.box)
    assert answer.device == GPU and answer.shape == (5,)


@torch.inference_mode()
@pytest.mark.parametrize("family", ["sutrack_t224"], indirect=True)
def test_a_template_without_a_box_can_be_recorded(family, on_gpu, waits):
    engine = on_gpu(family)
    template, search = (torch.zeros(1, 6, size, size).to(GPU) for size in (32, 64))
    engine(template, search)
    with OnDeviceAlone(waits):
        assert engine(template, search, recorded=False)["pred_boxes"].device == GPU
