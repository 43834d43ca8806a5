"""The smallest runs of the real trainer, for tests here and for the processes that they start."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def mini(load_script):
    """The module mini.py."""
    return load_script(Path(__file__).with_name("mini.py"))
