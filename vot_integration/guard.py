"""What keeps results honest: one evaluation at a time, one checkpoint per tracker name."""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ltr_ext.admin.files import file_sha256, write_text
from pytracking_ext.evaluation.datasets import Shard
from pytracking_ext.evaluation.results import read_record
from srft_plugin.errors import UserError

from .parameters import is_ours, load_parameters
from .workspace import Workspace, results_folder, tracker_environment, tracker_settings

RECORD = "srft.json"  # in the tracker's results folder; the toolkit lists folders only
WHOLE = Shard(1, 1)

# Settings of trackers.ini that do not change what a tracker reports.
INCIDENTAL = {"label", "python", "paths", "timeout", "env_srft_device", "env_srft_checkpoint"}


@contextlib.contextmanager
def evaluation_lock(workspace: Workspace, shard: Shard = WHOLE) -> Iterator[None]:
    """Holds the workspace for one evaluation; different shards may run side by side.

    The lock goes with the process, also when it is killed.

    Raises:
        UserError: another evaluation of the workspace, or of the same shard, is running.
    """
    whole = shard == WHOLE
    with contextlib.ExitStack() as stack:
        _hold(stack, workspace.directory / ".evaluate.lock", exclusive=whole)
        if not whole:
            name = f".evaluate-{shard.index}-of-{shard.count}.lock"
            _hold(stack, workspace.directory / name, exclusive=True)
        yield


def _hold(stack: contextlib.ExitStack, path: Path, exclusive: bool) -> None:
    try:
        # For reading, too: on NFS a shared lock needs it.
        file = stack.enter_context(path.open("a+", encoding="utf-8"))
        fcntl.flock(file, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UserError(
            f"another evaluation of {path.parent} is running; wait for it, or give both a --shard"
        ) from error
    except OSError as error:
        raise UserError(
            f"{path} cannot be locked ({error.strerror}); the workspace has to be on a file system "
            "with locks, in a folder that can be written to"
        ) from error


def claim_results(
    workspace: Workspace,
    tracker: str,
    shard: Shard = WHOLE,
    force: bool = False,
    adopt: bool = False,
) -> None:
    """Makes sure that the results of ``tracker`` come from its present checkpoint and parameters.

    Args:
        force: throw away the results of anything else.
        adopt: accept results without a record, those of a plain ``vot evaluate``.

    Raises:
        UserError: there are results of another checkpoint or parameters, or of unknown ones, or
            their record is damaged.
    """
    folder, identity = results_folder(workspace, tracker), tracker_identity(workspace, tracker)
    record = folder / RECORD
    if record.is_file():
        existing = read_record(record)
        changed = sorted(k for k in identity | existing if identity.get(k) != existing.get(k))
        problem = f"were made with another {', '.join(changed)}" if changed else None
    elif any(folder.rglob("*.bin")) and not adopt:
        problem = "do not say which checkpoint made them (plain `vot evaluate`)"
    else:
        problem = None
    if problem and not (force and shard == WHOLE):
        raise UserError(
            f"the results in {folder} {problem}; give the tracker another name (`srft vot init "
            "--name`), or start over with --force (all shards at once)"
            + ("" if record.is_file() else ", or keep them with --adopt")
        )
    if problem:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(record, json.dumps(identity, indent=2, sort_keys=True) + "\n")


def tracker_identity(workspace: Workspace, tracker: str) -> dict[str, Any]:
    """What determines the tracker's answers: parameters, and the contents of its checkpoint."""
    settings = tracker_settings(workspace, tracker)
    checkpoint = settings.get("env_srft_checkpoint")
    identity = {key: value for key, value in settings.items() if key not in INCIDENTAL}
    if is_ours(settings.get("env_srft_tracker")):
        environment = tracker_environment(workspace, tracker)
        for key in ("SRFT_DEVICE", "SRFT_PRECISION"):  # of no matter here, or among the settings
            environment.pop(key, None)
        parameters = load_parameters(environment)
        checkpoint = parameters.checkpoint
        identity |= parameters.settings
    if checkpoint is not None:
        identity["checkpoint_sha256"] = file_sha256(Path(checkpoint))
    return identity
