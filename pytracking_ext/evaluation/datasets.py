"""Test sets by the names that users of pytracking give them."""

from __future__ import annotations

import difflib
from collections.abc import Sequence as SequenceOf
from pathlib import Path

from ltr_ext.admin.environment import environment
from ltr_ext.dataset.registry import open_dataset
from ltr_ext.dataset.sequence import Sequence
from srft_plugin.errors import UserError


def open_test_set(name: str, root: str | Path | None = None) -> SequenceOf[Sequence]:
    """The test split of data set ``name``, read by the reader that training uses.

    Args:
        name: a benchmark, such as ``depthtrack``.
        root: its folder; by default the one that ``srft env set`` has stored.

    Raises:
        UserError: unknown name, path not set, or not a data set of that layout.
    """
    return open_dataset(name, root or environment().get(name), "test")


def choose(sequences: SequenceOf[Sequence], wanted: str | None) -> list[Sequence]:
    """All sequences, or the one whose name or number is ``wanted``.

    Raises:
        UserError: no such sequence; the nearest names are suggested.
    """
    everything = [sequences[index] for index in range(len(sequences))]
    if wanted is None:
        return everything
    by_name = {sequence.name: sequence for sequence in everything}
    if wanted in by_name:
        return [by_name[wanted]]
    if wanted.isdigit() and int(wanted) < len(everything):
        return [everything[int(wanted)]]
    nearest = difflib.get_close_matches(wanted, by_name, n=3, cutoff=0.4) or list(by_name)[:3]
    raise UserError(
        f"no sequence {wanted!r} among {len(everything)}; did you mean {' or '.join(nearest)}?"
    )
