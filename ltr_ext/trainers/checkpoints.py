"""Checkpoints of a run: written atomically, checked when read, the last few and the best kept."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from ltr_ext.admin.files import atomic_write, file_sha256, write_text
from srft_plugin.errors import UserError

_NAME = re.compile(r"checkpoint_ep(\d{4})\.pt$")


class CheckpointFolder:
    """The numbered checkpoints ``checkpoint_ep%04d.pt`` in one folder, each with its SHA-256."""

    def __init__(self, folder: Path, keep: int = 2):
        self.folder, self.keep = folder, keep

    def path(self, epoch: int) -> Path:
        """File of the state after ``epoch`` epochs."""
        return self.folder / f"checkpoint_ep{epoch:04d}.pt"

    def files(self) -> list[Path]:
        """Checkpoint files, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.search(path.name))

    def save(self, epoch: int, state: dict[str, Any], best: int | None = None) -> Path:
        """Writes the state after ``epoch`` epochs; of the others the newest and the best stay.

        Raises:
            UserError: the disk is full; the checkpoints written before are untouched.
        """
        path = self.path(epoch)

        def write(partial: Path) -> None:
            torch.save(state, partial)
            digest = f"{file_sha256(partial)}  {path.name}\n"
            write_text(path.with_suffix(".sha256"), digest)  # first: no checkpoint is without one

        atomic_write(path, write)
        for old in self.files()[: -self.keep]:
            if best is None or old != self.path(best):
                old.unlink()
                old.with_suffix(".sha256").unlink(missing_ok=True)
        return path

    def load(self, path: Path) -> dict[str, Any]:
        """State in the file ``path``, on the CPU; executes nothing.

        Raises:
            UserError: it is not what was written, or holds more than tensors and plain values.
        """
        recorded = path.with_suffix(".sha256")
        digests = recorded.read_bytes().split()[:1] if recorded.exists() else []
        if digests != [file_sha256(path).encode()]:
            raise UserError(f"{path} is damaged or incomplete")
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise UserError(f"{path} asks to run code on loading; it was not loaded") from error

    def load_newest(self) -> dict[str, Any] | None:
        """State of the newest checkpoint that can be loaded, or None when there is none at all.

        The others are passed over with a warning.

        Raises:
            UserError: there are checkpoints and none can be loaded.
        """
        files = self.files()
        for path in reversed(files):
            try:
                return self.load(path)
            except UserError as error:
                warnings.warn(f"{error}; trying the one before", stacklevel=2)
        if files:
            raise UserError(
                f"{self.folder}: none of {len(files)} checkpoints is intact; "
                "delete them to start afresh"
            )
        return None
