"""One training at a time in the folder of a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from srft_plugin.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

log = logging.getLogger(__name__)

FILE = ".lock"


@contextmanager
def run_lock(folder: Path) -> Iterator[None]:
    """Holds the folder of a run, which is made if need be, for this process.

    The lock goes with the process, also when it is killed, and its loading processes, which live a
    little longer, do not have it. On Windows, and on a file system without locks, there is none,
    with a warning.

    Raises:
        UserError: another process trains there, or the folder cannot be written to.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(open(folder / FILE, "ab"))
        except OSError as error:
            raise UserError(
                f"cannot write to {folder}: {error}; choose another --workspace"
            ) from error
        try:
            if fcntl is None:
                raise OSError("this system has no fcntl")
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError) as error:
            raise UserError(
                f"{folder}: another process is training this run; wait for it, or give this one "
                "another --name"
            ) from error
        except OSError as error:
            log.warning("%s cannot be locked (%s): start one training there", folder, error)
        yield
