"""Parts of the engine alone: number formats, what it remembers, CUDA graphs by stand-ins."""

import contextlib
from types import SimpleNamespace

import pytest
import torch

from pytracking_ext.engine import quantised
from pytracking_ext.engine.graph import WARM_UP, Graphed
from pytracking_ext.engine.precision import usable_dtype
from pytracking_ext.engine.recall import Recall
from srft_plugin.errors import UserError


def test_a_gpu_without_bfloat16_falls_back_with_one_warning(caplog, monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "GTX 1080")
    assert usable_dtype("bfloat16", gpu) == torch.float32
    assert [record.message for record in caplog.records] == [
        "bfloat16 is slow or absent here (GTX 1080 has no bfloat16 arithmetic); running in float32"
    ]
    assert usable_dtype("float16", gpu) == torch.float16
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **options: True)
    assert usable_dtype("bfloat16", gpu) == torch.bfloat16
    assert len(caplog.records) == 1
    assert usable_dtype("int8", gpu) == torch.float32
    assert "int8 is for CPUs" in caplog.records[1].message


@pytest.mark.parametrize("vnni", [True, False])
def test_int8_takes_what_the_processor_adds_up_exactly(monkeypatch, vnni):
    """Seven bits of input without VNNI: two products of 255 * 127 overflow 16 bits."""
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    layer = torch.nn.Linear(64, 64, bias=False)
    torch.nn.init.eye_(layer.weight)
    ramp = torch.linspace(0, 1, 64 * 64).view(64, 64)
    answer = quantised.Int8Linear(layer)(ramp)
    assert len(answer.unique()) == (256 if vnni else 128)
    torch.testing.assert_close(answer, ramp, atol=0.5 / (255 if vnni else 127) + 1e-6, rtol=0)


def test_answers_stay_where_a_recording_reads_them():
    """A CUDA graph of each batch size goes on reading the memory that it was recorded with."""
    memory = Recall(lambda image: image.flatten(1) + 1, size=4)
    memory.learning = True

    def learned(batch, value):
        memory.turn = 0
        return memory(torch.full((batch, 3, 4, 4), value))

    first = learned(2, 1.0)
    assert learned(1, 5.0).unique() == 6
    assert learned(2, 7.0) is first and first.unique() == 8


class OnGPU(torch.Tensor):
    """Says that it is on a GPU."""

    is_cuda = True


def test_a_shape_is_recorded_once_after_warming_up_and_reads_its_own_inputs(monkeypatch):
    events, seen = [], []

    @contextlib.contextmanager
    def capture(graph, pool, stream, capture_error_mode):
        assert pool == "pool"
        events.append("capture")
        yield
        events.append("captured")

    stream = SimpleNamespace(wait_stream=lambda other: events.append("wait"))
    for name, stand_in in (
        ("Stream", lambda: stream),
        ("graph_pool_handle", lambda: "pool"),
        ("current_stream", lambda: stream),
        ("stream", lambda side: contextlib.nullcontext()),
        ("CUDAGraph", lambda: SimpleNamespace(replay=lambda: events.append("replay"))),
        ("graph", capture),
    ):
        monkeypatch.setattr(torch.cuda, name, stand_in)

    def function(value):
        events.append("call")
        seen.append(value)
        return 2 * value

    graphed = Graphed(function)
    recording = ["wait", *["call"] * WARM_UP, "wait", "capture", "call", "captured"]
    first = torch.ones(2).as_subclass(OnGPU)
    answer = graphed(first)
    assert events == [*recording, "replay"]
    assert seen[-1] is not first and seen[-1].tolist() == [1, 1]
    assert graphed(torch.full((2,), 5.0).as_subclass(OnGPU)) is answer
    assert events == [*recording, "replay", "replay"] and seen[-1].tolist() == [5, 5]
    graphed(torch.ones(3).as_subclass(OnGPU))
    assert events == [*recording, "replay", "replay", *recording, "replay"]


@pytest.mark.parametrize("kind", [RuntimeError, UserError])
def test_a_recording_that_fails_is_left_out_with_one_warning(monkeypatch, caplog, kind):
    def refuse(self, inputs):
        raise kind("driver too old")

    streams = []
    monkeypatch.setattr(Graphed, "_recorded", refuse)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "own")
    monkeypatch.setattr(torch.cuda, "set_stream", streams.append)
    double = Graphed(lambda value: 2 * value)
    value = torch.ones(2).as_subclass(OnGPU)
    assert double(value).tolist() == double(value).tolist() == [2, 2]
    assert len(caplog.records) == 1
    assert "no CUDA graph can be recorded (driver too old)" in caplog.text
    assert streams == ["own"]  # torch leaves the stream of a failed recording current
    recording = [torch.ones(3)], SimpleNamespace(replay=lambda: None), "recorded"
    monkeypatch.setattr(Graphed, "_recorded", lambda self, inputs: recording)
    assert double(value).tolist() == [2, 2]  # a shape that failed is not tried again
    assert double(torch.ones(3).as_subclass(OnGPU)) == "recorded"
    assert len(caplog.records) == 1


def test_wrong_inputs_are_errors_and_do_not_end_recordings(monkeypatch, caplog):
    def function(value):
        if value.isnan().any():
            raise RuntimeError("no number")
        return value

    monkeypatch.setattr(Graphed, "_recorded", lambda self, inputs: self.function(*inputs))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: "own")
    monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: None)
    graphed = Graphed(function)
    with pytest.raises(RuntimeError, match="no number"):
        graphed(torch.full((2,), torch.nan).as_subclass(OnGPU))
    assert not graphed._failed and not caplog.records
