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

WHOLE = re.compile(r"checkpoint_ep(\d{4,})\.pt")
WITHIN = re.compile(r"checkpoint_ep(\d{4,})_step(\d{8,})\.pt")
WRITTEN = (
    "checkpoint_ep*", "best.safetensors.*", "network.safetensors.*", "prior.safetensors.*",
    "fisher_diagonal.safetensors.*",
)  # fmt: skip


class CheckpointFolder:
    """The checkpoints in one folder, each with its SHA-256.

    ``checkpoint_ep%04d.pt`` is the state after so many epochs, ``checkpoint_ep%04d_step%08d.pt``
    that within the next one, after so many steps of the run.
    """

    def __init__(self, folder: Path, keep: int = 2):
        self.folder, self.keep = folder, keep

    def path(self, epoch: int, step: int | None = None) -> Path:
        """File of the state after ``epoch`` epochs, or after ``step`` steps within the next."""
        within = "" if step is None else f"_step{step:08d}"
        return self.folder / f"checkpoint_ep{epoch:04d}{within}.pt"

    def files(self, names: re.Pattern[str] = WHOLE) -> list[Path]:
        """Checkpoint files, oldest first: those after an epoch, unless ``names`` is ``WITHIN``."""
        if not self.folder.is_dir():
            return []
        found = (path for path in self.folder.iterdir() if names.fullmatch(path.name))
        return sorted(found, key=_progress)

    def started(self) -> bool:
        """Whether there is a checkpoint, after an epoch or within one."""
        return bool(self.files() or self.files(WITHIN))

    def save(
        self, epoch: int, state: dict[str, Any], best: int | None = None, step: int | None = None
    ) -> Path:
        """Writes the state after ``epoch`` epochs, or after ``step`` steps within the next.

        Of those after an epoch the newest and the ``best`` stay; one within an epoch stays until
        the next checkpoint is there.

        Raises:
            UserError: the disk is full; the checkpoints written before are untouched.
        """
        path = self.path(epoch, step)

        def write(partial: Path) -> None:
            torch.save(state, partial)
            digest = f"{file_sha256(partial)}  {path.name}\n"
            write_text(path.with_suffix(".sha256"), digest)  # first: no checkpoint is without one

        atomic_write(path, write)
        kept = {path, *self.files()[-self.keep :]} | ({self.path(best)} if best else set())
        for old in {*self.files(), *self.files(WITHIN)} - kept:
            old.unlink()
            old.with_suffix(".sha256").unlink(missing_ok=True)
        self.tidy()
        return path

    def tidy(self) -> None:
        """Removes what a run that was killed had begun to write."""
        for name in WRITTEN:
            for unfinished in self.folder.glob(f".{name}.partial"):
                unfinished.unlink()

    def load(self, path: Path) -> dict[str, Any]:
        """State in the file ``path``, on the CPU; executes nothing.

        Raises:
            UserError: it is not what was written, or holds more than tensors and plain values.
        """
        recorded = path.with_suffix(".sha256")
        digests = recorded.read_bytes().split()[:1] if recorded.exists() else []
        if digests != [file_sha256(path).encode()]:
            raise UserError(f"{path} is damaged or incomplete; delete it and {recorded.name}")
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
        files = sorted(self.files() + self.files(WITHIN), key=_progress)
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


def _progress(path: Path) -> list[int]:
    """Epochs, and steps where the state is of within one."""
    return [int(number) for number in re.findall(r"\d+", path.stem)]
