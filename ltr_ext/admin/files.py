"""Files that are whole or not there, and their hashes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError

from srft_plugin.errors import UserError

HOST = socket.gethostname()


def atomic_write(path: Path, write: Callable[[Path], object]) -> None:
    """Calls ``write(temporary_path)``, syncs and renames: ``path`` is whole or not there at all.

    Raises:
        UserError: the disk is full or not writable; what stood at ``path`` before is untouched.
    """
    if path.is_dir():
        raise UserError(f"{path} is a folder; expected the name of a file to write")
    partial = path.with_name(f".{path.name}.{uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.touch()
            mode = partial.stat().st_mode
            write(partial)
            partial.chmod(mode)  # safetensors would let nobody else read it
            sync(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)
    except (OSError, RuntimeError, SafetensorError) as error:  # a full disk, in torch's words too
        raise UserError(
            f"cannot write {path}: {error}; free some space or choose another folder. "
            "What was there before is untouched"
        ) from error


def sync(path: Path) -> None:
    """Waits until the file is on the disk.

    Raises:
        OSError: it does not fit there.
    """
    with open(path, "rb") as file:
        os.fsync(file.fileno())


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """An empty folder beside ``target`` that takes its place when the block has ended well.

    Other processes may make the same one at the same time: the first to end counts. What processes
    of this machine that are gone have left is removed.

    Raises:
        OSError: the folder around cannot be written to.
    """
    for path in target.parent.glob(f".{target.name}.{HOST}-*.partial"):
        try:
            os.kill(int(path.stem.rpartition("-")[2]), 0)
        except ProcessLookupError:
            shutil.rmtree(path)
        except PermissionError:  # it lives, and is somebody else's
            pass
    partial = target.with_name(f".{target.name}.{HOST}-{os.getpid()}.partial")
    try:
        partial.mkdir()
        yield partial
        try:
            partial.rename(target)
        except OSError:
            if not target.exists():  # else another process was faster
                raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text by ``atomic_write``."""
    atomic_write(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UserError: it cannot be read, or holds something else; ``remedy`` is the message's end.
    """
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read ({error}): {remedy}") from error
    if not isinstance(found, dict):
        kind = type(found).__name__
        raise UserError(f"{path}: expected a JSON object, found {kind}: {remedy}")
    return found


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
