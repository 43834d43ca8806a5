"""The engine: a network's stand-in that answers alike, sooner."""

from __future__ import annotations

import copy
import logging
import sys
import threading
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ltr_ext.models.network import TrackingNetwork
from pytracking_ext.engine import recall
from pytracking_ext.engine.fused import fuse
from pytracking_ext.engine.graph import Graphed
from pytracking_ext.engine.precision import exact_convolutions, usable_dtype
from srft_plugin.errors import UserError, out_of_memory

log = logging.getLogger(__name__)

OUTPUTS = ("score_map", "size_map", "offset_map", "pred_boxes")
Input = Tensor | Sequence[Tensor]  # a network with several templates takes a sequence of them


class Turn:
    """Lets one thread in at a time, and on a GPU its stream only after that of the one before.

    A copy is of its own. While a graph is recorded, the order is the graph's.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._lock = threading.RLock()
        self._stream: torch.cuda.Stream | None = None

    def __reduce__(self) -> tuple:
        return type(self), (self.device,)

    def __enter__(self) -> None:
        self._lock.acquire()
        stream = self._current()
        if None not in (stream, self._stream) and stream != self._stream:
            stream.wait_stream(self._stream)

    def __exit__(self, *reason: object) -> None:
        self._stream = self._current() or self._stream
        self._lock.release()

    def _current(self) -> torch.cuda.Stream | None:
        """The stream that others have to wait for: none on a CPU or while a graph is recorded."""
        if self.device.type != "cuda" or torch.cuda.is_current_stream_capturing():
            return None
        return torch.cuda.current_stream(self.device)


class Engine(nn.Module):
    """Runs a network for inference; called with what the network is called with, by position.

    Both branches of a two-branch ViT are one batched product per layer (on a CPU, wide layers have
    their weights packed instead), batch norm is folded into the head's convolutions and its towers
    run side by side; what depends on the template alone is computed when the template changes (when
    its tensor is another one, or was written to), and on a GPU every frame is one CUDA graph. One
    template is known at a time: targets that take turns get right answers, but none of this.
    Threads wait for each other. The network given stays as it is and is the reference: in float32,
    boxes agree to 0.05 pixels.

    Args:
        network: on the device to run on, in any number format; it is copied to float32.
        precision: float32, bfloat16, float16 (GPUs) or int8 (CPUs). Where the device lacks it,
            float32 is taken, and a warning says why. Maps and boxes are float32 in any case.
        compile: let torch.compile fuse what is left; it takes a minute at the first frame, and a
            C++ compiler on a CPU.

    Raises:
        UserError: unknown precision.
    """

    def __init__(
        self, network: TrackingNetwork, precision: str = "float32", compile: bool = False
    ) -> None:
        super().__init__()
        self.spec, self.metadata = network.spec, network.metadata
        self.input_names = network.input_names
        self.device = next(network.parameters()).device
        self.dtype = usable_dtype(precision, self.device)
        self._exact = self.device.type == "cuda" and self.dtype == torch.float32
        self.network = fuse(copy.deepcopy(network).float().eval(), self.dtype, pack=not compile)
        self._memories = recall.install(self.network)
        self._template: list[tuple[Tensor, int]] = []  # each with how often it was written to
        self.turn = Turn(self.device)
        self._compile = compile
        self._set_compiled()
        self._graphed = Graphed(self._flat_run)
        self._counts: list[int] = []
        self._largest = sys.maxsize  # batch that fits into memory

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_compiled"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy compiles anew: what is compiled runs the original."""
        super().__setstate__(state)
        self._set_compiled()

    def _set_compiled(self) -> None:
        run = self._run
        self._compiled = torch.compile(run, dynamic=False) if self._compile else run

    @torch.inference_mode()
    def forward(self, *inputs: Input | None, recorded: bool = True) -> dict[str, Tensor]:
        """What the network answers: ``score_map``, ``size_map``, ``offset_map``, ``pred_boxes``.

        Args:
            inputs: as the network takes them; None for those at the end that it can do without.
            recorded: whether a GPU replays a CUDA graph: not where the caller records its own.

        Raises:
            UserError: images are not what ``spec`` says, or one sample alone exceeds the memory.
        """
        while inputs and inputs[-1] is None:
            inputs = inputs[:-1]
        if not 1 <= len(inputs) <= len(self.input_names) or any(v is None for v in inputs):
            given = ", ".join("None" if v is None else "a value" for v in inputs)
            raise UserError(
                f"{self.spec.name}: {len(inputs)} inputs ({given}); expected "
                f"{', '.join(self.input_names)}"
            )
        size = len(_flat(inputs)[0])
        if size <= self._largest:
            try:
                with self.turn, exact_convolutions(self._exact):
                    return self._answer(inputs, recorded)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                self._shrink(size, error)
        starts = range(0, size, self._largest)
        rows = [slice(start, start + self._largest) for start in starts]
        parts = [
            self.forward(*(_rows(value, part) for value in inputs), recorded=recorded)
            for part in rows
        ]
        return {name: torch.cat([part[name] for part in parts]) for name in OUTPUTS}

    def _shrink(self, size: int, error: Exception) -> None:
        """Takes smaller batches from now on, after one of ``size`` did not fit into memory."""
        if size == 1:
            raise UserError(
                f"{self.spec.name}: one sample alone exceeds the memory of {self.device}; choose a "
                f"smaller network or another device ({error})"
            ) from error
        self._largest = size // 2
        log.warning(
            "a batch of %d exceeds the memory of %s; running at most %d at once",
            size, self.device, self._largest,
        )  # fmt: skip

    def recalls(self, template: Input) -> bool:
        """Whether the last answer was for this very template, so that the next is sooner."""
        given = _flat([template])
        return len(given) == len(self._template) and all(
            own is other and count == recall.version(other)
            for (own, count), other in zip(self._template, given, strict=True)
        )

    def forget(self) -> None:
        """The template's tensor has other values now, and torch has not counted the change: it
        counts none of tensors made in inference mode."""
        self._template = []

    def _answer(self, inputs: Sequence[Input], recorded: bool) -> dict[str, Tensor]:
        if not self.recalls(inputs[0]):
            self._template = []  # not known before the memories hold it
            self._learn(True)
            outputs = self._run(*inputs)
            self._learn(False)
            self._template = [(tensor, recall.version(tensor)) for tensor in _flat(inputs[:1])]
            return outputs
        self._counts = [1 if isinstance(value, Tensor) else len(value) for value in inputs]
        if not recorded:
            return self._flat_run(*_flat(inputs))
        # The next call, perhaps another thread's, overwrites what a recording answers.
        return {name: value.clone() for name, value in self._graphed(*_flat(inputs)).items()}

    def _learn(self, learning: bool) -> None:
        for memory in self._memories:
            memory.learning = learning

    def _flat_run(self, *tensors: Tensor) -> dict[str, Tensor]:
        """As ``_run``, with the templates of a sequence as inputs of their own."""
        values = iter(tensors)
        inputs = [
            next(values) if count == 1 else tuple(next(values) for _ in range(count))
            for count in self._counts
        ]
        return self._compiled(*inputs)

    def _run(self, *inputs: Input) -> dict[str, Tensor]:
        for memory in self._memories:
            memory.turn = 0
        low = self.dtype in (torch.bfloat16, torch.float16)
        dtype = self.dtype if low else None
        with torch.autocast(self.device.type, dtype, enabled=low, cache_enabled=False):
            outputs = self.network(*inputs)
        return {name: outputs[name] for name in OUTPUTS}


def _flat(inputs: Sequence[Input]) -> list[Tensor]:
    """All tensors, those of sequences included."""
    return [
        tensor
        for value in inputs
        for tensor in ([value] if isinstance(value, Tensor) else value)
    ]  # fmt: skip


def _rows(value: Input, part: slice) -> Input:
    """Some samples of an input."""
    return value[part] if isinstance(value, Tensor) else tuple(images[part] for images in value)
