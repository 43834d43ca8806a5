"""The smallest runs of the real trainer, for tests here and for the processes that they start."""

import importlib.util
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mini():
    """The module mini.py."""
    spec = importlib.util.spec_from_file_location("mini", Path(__file__).with_name("mini.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
