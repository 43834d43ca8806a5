"""Number formats of inference, and what this machine can do of them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

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


@contextmanager
def tensor_cores(enabled: bool) -> Iterator[None]:
    """Whether float32 convolutions may be rounded to TF32, as torch lets them on GPUs."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = enabled
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def has_kernels(device: torch.device) -> bool:
    """Whether ``pytracking_ext.engine.kernels`` run there: on a GPU where Triton works."""
    return device.type == "cuda" and triton_lacks() is None


def _missing(precision: str, device: torch.device) -> str | None:
    """Why ``precision`` does not pay on the device; None if it does."""
    if precision == "bfloat16" and device.type == "cuda":
        if not torch.cuda.is_bf16_supported(including_emulation=False):
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
