"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
import torch

# Without a GPU, Triton's kernels run in its interpreter; Triton reads this when it is imported.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SRFT_SHARED", REPOSITORY.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with golden values and small real sequences; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip(f"no reference data in {SHARED}; set SRFT_SHARED to a folder that has them")
    return SHARED


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    """File of an untrained RGB tracker, for what does not depend on how good it is."""
    from ltr_ext.models.checkpoint import save_network
    from ltr_ext.models.registry import build_network

    torch.manual_seed(1)
    file = tmp_path_factory.mktemp("base") / "base.safetensors"
    save_network(build_network("ostrack_tiny"), file)
    return file
