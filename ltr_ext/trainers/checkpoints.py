"""Checkpoints of a run: written atomically, checked when read, the last few kept."""

from __future__ import annotations

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

    def files(self) -> list[Path]:
        """Checkpoint files, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(path for path in self.folder.iterdir() if _NAME.search(path.name))

    def save(self, epoch: int, state: dict[str, Any]) -> Path:
        """Writes the state after ``epoch`` epochs and removes all but the newest ``keep``."""
        path = self.folder / f"checkpoint_ep{epoch:04d}.pt"
        atomic_write(path, lambda partial: torch.save(state, partial))
        digest = f"{file_sha256(path)}  {path.name}\n"
        write_text(path.with_suffix(".sha256"), digest)
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
            if recorded.exists() and recorded.read_text("ascii").split()[0] == file_sha256(path):
                return torch.load(path, map_location="cpu", weights_only=True)
            warnings.warn(f"{path} is damaged or incomplete; trying the one before", stacklevel=2)
        if files:
            raise UserError(
                f"{self.folder}: none of {len(files)} checkpoints is intact; "
                "delete them to start afresh"
            )
        return None
