"""Test sets by the names that users of pytracking give them, and parts of them."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterable
from collections.abc import Sequence as Many
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from ltr_ext.admin.environment import environment
from ltr_ext.dataset.registry import open_dataset
from ltr_ext.dataset.sequence import Sequence
from srft_plugin.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part ``index`` (from 1) of ``count``.

    Raises:
        UserError: there is no such part.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise _no_shard(f"{self.index}/{self.count}")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """``"2/4"``.

        Raises:
            UserError: not of that form.
        """
        try:
            index, count = map(int, text.split("/"))
        except ValueError as error:
            raise _no_shard(text) from error
        return cls(index, count)

    @classmethod
    def of_process(cls) -> Shard:
        """What torchrun gave this process to do; everything without it."""
        return cls(int(os.environ.get("RANK", 0)) + 1, int(os.environ.get("WORLD_SIZE", 1)))


def open_test_set(name: str, root: str | Path | None = None) -> Many[Sequence]:
    """The test split of data set ``name``, read by the reader that training uses.

    Args:
        name: a benchmark, such as ``depthtrack``.
        root: its folder; by default the one that ``srft env set`` has stored.

    Raises:
        UserError: unknown name, path not set, or not a data set of that layout.
    """
    return open_dataset(name, root or environment().get(name), "test")


def read_sequences(
    dataset: Many[Sequence], wanted: str | None = None
) -> tuple[list[Sequence], dict[str, str]]:
    """All sequences of a test set, or the one whose name or number is ``wanted``.

    Returns:
        The sequences, and by name the message of each whose annotation cannot be used.

    Raises:
        UserError: no such sequence; the nearest names are suggested.
    """
    names = getattr(dataset, "names", None) or [dataset[i].name for i in range(len(dataset))]
    sequences, failures = [], {}
    for index in range(len(names)) if wanted is None else [_index(names, wanted)]:
        try:
            sequences.append(dataset[index])
        except UserError as error:
            failures[names[index]] = str(error)
    return sequences, failures


def part(sequences: Iterable[T], shard: Shard, length: Callable[[T], int] = len) -> list[T]:
    """The sequences of one shard, longest first: all shards have about as many frames."""
    return sorted(sequences, key=length, reverse=True)[shard.index - 1 :: shard.count]


def _no_shard(text: str) -> UserError:
    return UserError(f"no shard {text!r}; expected i/n with 1 <= i <= n, such as 2/4")


def _index(names: Many[str], wanted: str) -> int:
    if wanted in names:
        return names.index(wanted)
    if wanted.isdecimal() and int(wanted) < len(names):
        return int(wanted)
    nearest = difflib.get_close_matches(wanted, names, n=3, cutoff=0.4) or names[:3]
    raise UserError(
        f"no sequence {wanted!r} among {len(names)}; did you mean {' or '.join(nearest)}?"
    )
