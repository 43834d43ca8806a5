"""What the VOT toolkit's Python API lacks: atomic results and a tracker process that stays.

The objects here stand in for the toolkit's own where it takes any object with the right methods.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import vot.workspace
from vot.tracker import Results
from vot.workspace.storage import LocalStorage

from srft_plugin.errors import UserError


@contextlib.contextmanager
def toolkit_workspace(directory: Path) -> Iterator[vot.workspace.Workspace]:
    """The toolkit's view of a workspace, with its progress output off (it goes to stdout).

    Raises:
        UserError: the toolkit cannot load the workspace.
    """
    logger = logging.getLogger("vot")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield _load(directory)
    finally:
        logger.setLevel(level)


class StagedResults(Results):
    """Results of one sequence that appear in their folder only when their run is complete.

    The toolkit writes a trajectory before its properties, and takes the trajectory alone as a
    complete run. Here both go to a staging folder on the same file system, and `commit` moves them,
    the trajectory last.
    """

    def __init__(self, folder: Path, staging: Path) -> None:
        super().__init__(LocalStorage(str(folder)))
        self._folder, self._staging = folder, staging
        staging.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, name: str) -> Any:
        """Opens a result file for writing, out of sight."""
        return LocalStorage(str(self._staging)).write(name, binary=name.endswith(".bin"))

    def commit(self) -> None:
        """Moves what has been written to its place. To be called between runs."""
        for path in sorted(self._staging.iterdir(), key=lambda path: path.suffix == ".bin"):
            os.replace(path, self._folder / path.name)


class ResultsStorage:
    """A storage for one experiment and one sequence, whose results go where they are told to."""

    def __init__(self, results: Results) -> None:
        self._results = results

    def results(self, tracker: Any, experiment: Any, sequence: Any) -> Results:
        """The one place for results."""
        return self._results


class KeptRuntime:
    """A tracker runtime that ignores the toolkit's order to stop after each sequence.

    Loading a network costs seconds, and the toolkit would start a process for every sequence.
    ``process`` is the toolkit's runtime; ``process.stop()`` ends it.
    """

    def __init__(self, process: Any) -> None:
        self.process = process

    def __getattr__(self, name: str) -> Any:
        return getattr(self.process, name)

    def __enter__(self) -> KeptRuntime:
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Called by the toolkit at the end of a sequence."""


def _load(directory: Path) -> vot.workspace.Workspace:
    try:
        return vot.workspace.Workspace.load(str(directory))
    except Exception as error:  # the toolkit raises bare Exceptions, AssertionErrors and others
        raise UserError(
            f"{directory}: the VOT toolkit cannot load the workspace ({error}); "
            "`srft vot doctor` looks for the cause"
        ) from error
