"""Number formats of inference, and what this machine can do of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch

from pytracking_ext.engine import quantised
from srft_plugin.errors import unknown
from srft_plugin.kernels import triton_lacks

log = logging.getLogger(__name__)

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
}


def dtype_of(precision: str) -> torch.dtype:
    """The type that ``precision`` names.

    Raises:
        UserError: no such precision.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    return PRECISIONS[precision]


def usable_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The type for ``precision``, or float32 with a warning where the device has it not.

    Raises:
        UserError: no such precision.
    """
    dtype = dtype_of(precision)
    if reason := _missing(precision, device):
        log.warning("%s is slow or absent here (%s); running in float32", precision, reason)
        return torch.float32
    return dtype


class _ExactConvolutions:
    """A setting of the whole process: the first who wants it makes it, the last takes it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before: Any = None

    def enter(self) -> None:
        with self._lock:
            self._inside += 1
            if self._inside == 1:
                backend, name, exact = self._setting()
                self._before = getattr(backend, name)
                setattr(backend, name, exact)

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                backend, name, _ = self._setting()
                setattr(backend, name, self._before)

    @staticmethod
    def _setting() -> tuple[Any, str, object]:
        """Where torch keeps it, and the value that means no TF32."""
        backend = torch.backends.cudnn
        if hasattr(backend, "conv"):  # torch >= 2.9 does not let the two ways be mixed
            return backend.conv, "fp32_precision", "ieee"
        return backend, "allow_tf32", False


_exact = _ExactConvolutions()


@contextmanager
def exact_convolutions(wanted: bool) -> Iterator[None]:
    """Without TF32, to which torch lets GPUs round the factors of float32 convolutions."""
    if not wanted:
        yield
        return
    _exact.enter()
    try:
        yield
    finally:
        _exact.leave()


def has_kernels(device: torch.device) -> bool:
    """Whether ``pytracking_ext.engine.kernels`` run there: on a GPU where Triton works.

    A warning says once what is missing on a GPU.
    """
    if device.type != "cuda":
        return False
    index = torch.cuda.current_device() if device.index is None else device.index
    return _has_kernels(torch.device("cuda", index))


@cache
def _has_kernels(device: torch.device) -> bool:
    lacking = triton_lacks()
    if lacking is None:
        from pytracking_ext.engine import kernels

        try:
            kernels.add_norm(torch.zeros(1, 8, device=device), None, None, 1e-6, 16, torch.float32)
        except Exception as error:  # of the compiler, the driver, a cache that cannot be written
            lacking = f"kernels that compile here ({error})"
    if lacking is not None:
        log.warning("the engine runs without its kernels on %s: it needs %s", device, lacking)
    return lacking is None


def _missing(precision: str, device: torch.device) -> str | None:
    """Why ``precision`` does not pay on the device; None if it does."""
    if precision == "bfloat16" and device.type == "cuda":
        with torch.cuda.device(device):
            supported = torch.cuda.is_bf16_supported(including_emulation=False)
        if not supported:
            return f"{torch.cuda.get_device_name(device)} has no bfloat16 arithmetic"
    elif precision == "bfloat16" and device.type == "cpu":
        if not (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()):
            return "the processor has neither AVX512-BF16 nor AMX"
    elif precision == "float16" and device.type == "cpu":
        return "float16 is for GPUs"
    elif precision == "int8" and device.type != "cpu":
        return "int8 is for CPUs"
    elif precision == "int8" and not quantised.available():
        return f"torch {torch.__version__} has no int8 layers for this processor"
    return None
