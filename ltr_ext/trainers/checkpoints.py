"""Checkpoints of a run: written atomically, checked when read, the last few kept."""

from __future__ import annotations

import hashlib
import os
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from srft_plugin.errors import UserError

_NAME = re.compile(r"checkpoint_ep(\d{4})\.pt$")


def atomic_write(path: Path, write) -> None:
    """Calls ``write(temporary_path)``, syncs and renames: ``path`` is whole or not there at all.

    Raises:
        UserError: the disk is full or not writable; what stood at ``path`` before is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        write(partial)
        with open(partial, "rb") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as RuntimeError
        raise UserError(
            f"cannot write {path}: {error}; free some space or choose another folder; "
            "earlier checkpoints are untouched"
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return (
            hashlib.file_digest(file, "sha256").hexdigest()
            if hasattr(hashlib, "file_digest")
            else hashlib.sha256(file.read()).hexdigest()
        )


class CheckpointFolder:
    """The numbered checkpoints ``checkpoint_ep%04d.pt`` in one folder, each with its SHA-256."""

    def __init__(self, folder: Path, keep: int = 2):
        self.folder, self.keep = folder, keep

    def files(self) -> list[Path]:
        """Checkpoint files, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.search(path.name))

    def save(self, epoch: int, state: dict[str, Any]) -> Path:
        """Writes the state after ``epoch`` epochs and removes all but the newest ``keep``."""
        path = self.folder / f"checkpoint_ep{epoch:04d}.pt"
        atomic_write(path, lambda partial: torch.save(state, partial))
        digest = f"{_digest(path)}  {path.name}\n"
        atomic_write(
            path.with_suffix(".sha256"), lambda partial: partial.write_text(digest, "ascii")
        )
        for old in self.files()[: -self.keep]:
            old.unlink()
            old.with_suffix(".sha256").unlink(missing_ok=True)
        return path

    def load_newest(self) -> dict[str, Any] | None:
        """State of the newest checkpoint that is intact, or None when there is none at all.

        A damaged file is passed over with a warning.

        Raises:
            UserError: there are checkpoints and every one is damaged.
        """
        files = self.files()
        for path in reversed(files):
            recorded = path.with_suffix(".sha256")
            if recorded.exists() and recorded.read_text("ascii").split()[0] == _digest(path):
                return torch.load(path, map_location="cpu", weights_only=True)
            warnings.warn(f"{path} is damaged or incomplete; trying the one before", stacklevel=2)
        if files:
            raise UserError(
                f"{self.folder}: none of {len(files)} checkpoints is intact; "
                "delete them to start afresh"
            )
        return None
