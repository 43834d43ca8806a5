"""Runs a small training to its end, then another that is killed ten times on its way.

`python killed_runs.py FOLDER` prints one line of JSON. A run is a process forked from this one,
which has imported everything already, so that a start costs milliseconds. Kill k comes within one
and a half epochs, at random, after epoch k has been saved.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from mini import mini_trainer

from ltr_ext.trainers.checkpoints import CheckpointFolder

EPOCHS, KILLS = 14, 10
OVERRIDES = ["regularizer=srft:transfer", f"epochs={EPOCHS}", "samples_per_epoch=8", "ema=0.9"]


def start(folder: Path) -> int:
    """A process that trains in ``folder``, or goes on with what is there."""
    process = os.fork()
    if process == 0:
        status = 1
        try:
            mini_trainer(folder, *OVERRIDES).train()
            status = 0
        finally:
            os._exit(status)
    return process


def finished(folder: Path) -> float:
    """Seconds that a run takes which nobody kills."""
    begun = time.monotonic()
    _, status = os.waitpid(start(folder), 0)
    assert status == 0
    return time.monotonic() - begun


def last_epoch(folder: Path) -> int:
    files = CheckpointFolder(folder).files()
    return int(files[-1].stem[-4:]) if files else 0


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    mini_trainer(folder / "warm", *OVERRIDES, "epochs=1").train()  # imports what comes late
    chance = random.Random(0)
    seconds = finished(folder / "unbroken")
    epochs, run = [], folder / "killed"
    for kill in range(KILLS):
        process = start(run)
        while last_epoch(run) < kill:
            assert os.waitpid(process, os.WNOHANG) == (0, 0), "the run ended before it was killed"
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 1.5 * seconds / EPOCHS))
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        assert os.WIFSIGNALED(status), "the run ended before it was killed"
        epochs.append(last_epoch(run))
    finished(run)
    states = [
        torch.load(max(run.glob("checkpoint_ep*.pt")), weights_only=True)
        for run in (folder / "unbroken", folder / "killed")
    ]
    tensors = [
        [*state["net"].values(), *state["average"],
         *(v for values in state["optimizer"]["state"].values() for v in values.values())]
        for state in states
    ]  # fmt: skip
    equal = all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))
    logs = [(run / "log.jsonl").read_text() for run in (folder / "unbroken", folder / "killed")]
    steps = [[json.loads(line)["step"] for line in log.splitlines()] for log in logs]
    equal = equal and steps[0] == steps[1] and states[0]["epoch"] == states[1]["epoch"] == EPOCHS
    print(json.dumps({"epochs": epochs, "equal": equal}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
