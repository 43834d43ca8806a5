"""Official weights give the numbers of the public implementations."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from ltr_ext.models.checkpoint import guess_network

_SPEC = importlib.util.spec_from_file_location("golden", Path(__file__).with_name("golden.py"))
golden = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(golden)


@pytest.mark.parametrize("name", golden.NETWORKS)
def test_same_numbers_as_the_public_implementation(shared, name):
    errors = golden.golden_errors(shared, name)
    assert max(errors.values()) <= golden.TOLERANCE, errors


@pytest.mark.parametrize(
    ("file", "name"), [(file, name) for name, files in golden.NETWORKS.items() for file in files]
)
def test_an_official_file_is_recognised_by_its_tensors(shared, file, name):
    """With and without candidate elimination they are the same; the one without is taken."""
    shapes = golden.Golden(shared, file).shapes
    state = {key: torch.empty(shape, device="meta") for key, (shape, _) in shapes.items()}
    expected = {"ostrack256_ce": "ostrack256", "ostrack384_ce": "ostrack384"}.get(name, name)
    assert guess_network(state) == expected
