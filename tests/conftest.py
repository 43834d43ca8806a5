"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = Path(os.environ.get("SRFT_SHARED", REPOSITORY.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder with golden values and small real sequences; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip(f"no reference data in {SHARED}; set SRFT_SHARED to a folder that has them")
    return SHARED
