"""Which challenges each sequence has, from the files that benchmarks ship beside their scripts."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ltr_ext.dataset.annotation import read_flags
from srft_plugin.errors import UserError, unknown

_EVENT = (
    "CM", "ROT", "DEF", "FOC", "LI", "OV", "POC", "VC", "SV",
    "BC", "MB", "ARC", "FM", "NMO", "IV", "OE", "BOM",
)  # fmt: skip
# Columns of the files, in their order.
ATTRIBUTES = {
    "lasher": (
        "NO", "PO", "TO", "HO", "MB", "LI", "HI", "AIV", "LR", "DEF",
        "BC", "SA", "CM", "TC", "FL", "OV", "FM", "SV", "ARC",
    ),
    "visevent": _EVENT,
    "coesot": _EVENT,
    "lasot": (
        "IV", "POC", "DEF", "MB", "CM", "ROT", "BC",
        "VC", "SV", "FOC", "FM", "OV", "LR", "ARC",
    ),
}  # fmt: skip
FILES = ("{name}.txt", "{name}_attribute.txt")


def read_attributes(
    folder: Path, benchmark: str, names: Iterable[str]
) -> dict[str, tuple[str, ...]]:
    """Attributes by sequence.

    Args:
        folder: one file per sequence with 0 or 1 for every attribute (LasHeR: ``AttriSeqsTxt``,
            VisEvent, CoeSot and LaSOT: ``att``).
        benchmark: whose list of attributes it is.
        names: of the sequences.

    Raises:
        UserError: a benchmark without such a list, a missing file, or one of another length.
    """
    if benchmark not in ATTRIBUTES:
        raise unknown("benchmark with attributes", benchmark, ATTRIBUTES)
    columns, found = ATTRIBUTES[benchmark], {}
    for name in names:
        paths = [folder / pattern.format(name=name) for pattern in FILES]
        path = next((path for path in paths if path.is_file()), paths[0])
        flags = read_flags(path)
        if len(flags) != len(columns):
            raise UserError(
                f"{path}: {len(flags)} values for the {len(columns)} attributes of {benchmark} "
                f"({', '.join(columns)})"
            )
        found[name] = tuple(c for c, flag in zip(columns, flags, strict=True) if flag == 1)
    return found
