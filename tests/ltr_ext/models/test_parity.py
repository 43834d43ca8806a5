"""Official weights give the numbers of the public implementations."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from ltr_ext.models.checkpoint import load_weights, translate
from ltr_ext.models.registry import build_network

_SPEC = importlib.util.spec_from_file_location("golden", Path(__file__).with_name("golden.py"))
golden = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(golden)

NETWORKS = {
    "ostrack_b256": "ostrack256",
    "srtrack_ostrack_b256": "two_branch_ostrack256",
}


@pytest.mark.parametrize("name", NETWORKS)
def test_same_numbers_as_the_public_implementation(shared, name):
    reference = golden.Golden(shared, name)
    with torch.device("meta"):
        network = build_network(NETWORKS[name])
    official = reference.official_state()
    assert translate(official, type(network)).keys() == network.state_dict().keys()
    network.to_empty(device="cpu").eval()
    load_weights(network, official, name)
    tokens = []
    network.backbone.register_forward_hook(lambda module, inputs, output: tokens.append(output))
    with torch.no_grad():
        outputs = network(reference.input("template"), reference.input("search"))
    errors = reference.errors(outputs, tokens[0])
    assert max(errors.values()) <= golden.TOLERANCE, errors
