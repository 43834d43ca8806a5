"""Our actor, loader and optimizer in pytracking's own LTRTrainer, and in a stand-in for it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

WORKER = Path(__file__).with_name("host_run.py")


@pytest.mark.parametrize("trainer", ["StandIn", "LTRTrainer"])
def test_two_epochs_checkpoint_and_resume(tmp_path, trainer):
    checkout = ""
    if trainer == "LTRTrainer":
        if "SRFT_PYTRACKING" not in os.environ:
            pytest.skip(
                "set SRFT_PYTRACKING to a pytracking checkout, and SRFT_PYTRACKING_PYTHON to an "
                "interpreter that has what pytracking needs"
            )
        checkout = os.environ["SRFT_PYTRACKING"]
    python = os.environ.get("SRFT_PYTRACKING_PYTHON", sys.executable)
    answer = subprocess.run(
        [python if checkout else sys.executable, str(WORKER), str(tmp_path), "3", checkout],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout.splitlines()[-1])
    assert found == {
        "trainer": trainer,
        "equal": True,
        "moved": True,
        "steps": [6, 6],
        "rates": [1e-3 / 8, 1e-3 / 8],
        "checkpoints": [f"TwoBranch_ep000{epoch}.pth.tar" for epoch in (1, 2, 3)],
    }
