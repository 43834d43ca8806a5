"""Runs a small training to its end, then another that is killed ten times on its way.

`python killed_runs.py FOLDER` prints one line of JSON. A run is a process forked from this one,
which has imported everything already, so that a start costs milliseconds. It saves every second
step, six of which make an epoch. Kill k comes at random within the time of three steps after step
3 k has been saved.
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

from ltr_ext.trainers import trainer

EPOCHS, STEPS, KILLS = 6, 36, 10
OVERRIDES = [
    "regularizer=srft:transfer", f"epochs={EPOCHS}", "samples_per_epoch=24", "ema=0.9",
    "save_minutes=0",
]  # fmt: skip


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


def saved_step(folder: Path) -> int:
    """Steps that the newest checkpoint has, as its name tells; 0 where there is none."""
    names = [file.stem for file in folder.glob("checkpoint_ep*.pt")]
    if not names:
        return 0
    *epoch, step = max(names).replace("_step", " ").split()
    return int(step) if epoch else int(step[-4:]) * STEPS // EPOCHS


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    trainer.LOG_EVERY = 2
    mini_trainer(folder / "warm", *OVERRIDES, "epochs=1").train()  # imports what comes late
    chance = random.Random(0)
    seconds = finished(folder / "unbroken")
    steps, run = [], folder / "killed"
    for kill in range(KILLS):
        process = start(run)
        while saved_step(run) < 3 * kill:
            assert os.waitpid(process, os.WNOHANG) == (0, 0), "the run ended before it was killed"
            time.sleep(0.01)
        time.sleep(chance.uniform(0, 3 * seconds / STEPS))
        os.kill(process, signal.SIGKILL)
        _, status = os.waitpid(process, 0)
        assert os.WIFSIGNALED(status), "the run ended before it was killed"
        steps.append(saved_step(run))
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
    logged = [[json.loads(line)["step"] for line in log.splitlines()] for log in logs]
    equal = equal and logged[0] == logged[1] and states[0]["epoch"] == states[1]["epoch"] == EPOCHS
    print(json.dumps({"steps": steps, "equal": equal}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
