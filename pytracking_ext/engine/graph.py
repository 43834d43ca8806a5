"""CUDA graphs: all kernels of a function launched at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from srft_plugin.errors import UserError

log = logging.getLogger(__name__)

WARM_UP = 3  # eager calls before the recording: libraries choose their kernels in them


class Graphed:
    """Calls a function of tensors by replaying a recording of its kernels.

    There is one recording per shape of the inputs; they share their memory. What the function
    returns is overwritten by its next call, of whatever shape. On other devices than GPUs, and for
    shapes that could not be recorded, the function is simply called.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self._recordings: dict[tuple, tuple[list[Tensor], torch.cuda.CUDAGraph, Any]] = {}
        self._failed: set[tuple] = set()
        self._side: torch.cuda.Stream | None = None
        self._pool: Any = None

    def __reduce__(self) -> tuple:
        """A copy records anew: recordings read the original's memory, and cannot be copied."""
        return type(self), (self.function,)

    def __call__(self, *inputs: Tensor) -> Any:
        if not inputs[0].is_cuda:
            return self.function(*inputs)
        with torch.cuda.device_of(inputs[0]):  # streams are those of the current device
            return self._replayed(inputs)

    def _replayed(self, inputs: tuple[Tensor, ...]) -> Any:
        key = tuple((value.shape, value.dtype) for value in inputs)
        if key not in self._recordings and key not in self._failed:
            reason = self._record(key, inputs)
            if reason:
                answer = self.function(*inputs)  # what is wrong with the inputs is an error here
                if not self._failed:
                    log.warning("no CUDA graph can be recorded (%s); running without", reason)
                self._failed.add(key)
                return answer
        if key in self._failed:
            return self.function(*inputs)
        own, graph, outputs = self._recordings[key]
        for buffer, value in zip(own, inputs, strict=True):
            buffer.copy_(value)
        graph.replay()
        return outputs

    def _record(self, key: tuple, inputs: tuple[Tensor, ...]) -> str:
        """Adds a recording; says why there is none. The error itself would hold on to memory."""
        stream = torch.cuda.current_stream()
        try:
            self._recordings[key] = self._recorded(inputs)
        except (RuntimeError, UserError) as error:
            torch.cuda.set_stream(stream)  # torch does not come back from a failed recording
            return str(error) or type(error).__name__
        return ""

    def _recorded(
        self, inputs: tuple[Tensor, ...]
    ) -> tuple[list[Tensor], torch.cuda.CUDAGraph, Any]:
        if self._side is None:  # memory is shared within one stream
            self._side, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()
        own, side = [value.clone() for value in inputs], self._side
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.function(*own)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # Other threads, of the caller's, may use the GPU meanwhile.
        mode = "thread_local"
        with torch.cuda.graph(graph, self._pool, stream=side, capture_error_mode=mode):
            outputs = self.function(*own)
        return own, graph, outputs
