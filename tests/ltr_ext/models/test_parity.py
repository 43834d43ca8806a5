"""Official weights give the numbers of the public implementations."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

_SPEC = importlib.util.spec_from_file_location("golden", Path(__file__).with_name("golden.py"))
golden = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(golden)


@pytest.mark.parametrize("name", golden.NETWORKS)
def test_same_numbers_as_the_public_implementation(shared, name):
    errors = golden.golden_errors(shared, name)
    assert max(errors.values()) <= golden.TOLERANCE, errors
