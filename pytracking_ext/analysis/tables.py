"""Tables of scores for the terminal, Markdown, LaTeX and programs."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

FORMATS = ("text", "markdown", "latex", "json")
# What a cell of a paper's table must escape.
_LATEX = str.maketrans(
    {char: f"\\{char}" for char in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
    | {"[": "{[}"}  # else an optional length, after the end of a row
)


@dataclass
class Table:
    """Rows of a label and cells; numbers are percent, None is "not there".

    Attributes:
        title: one line above it.
        columns: headings, the label's first.
        rows: (label, cells).
        notes: lines below it.
    """

    title: str
    columns: list[str]
    rows: list[tuple[str, list[Any]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, label: str, cells: list[Any]) -> None:
        """Appends a row."""
        self.rows.append((label, cells))


def render(table: Table, form: str = "text") -> str:
    """The table in one of ``FORMATS``."""
    if form == "json":
        return json.dumps(_record(table), indent=2)
    return {"text": _text, "markdown": _markdown, "latex": _latex}[form](table)


def render_all(tables: list[Table], form: str = "text") -> str:
    """Several tables, for programs as one JSON list."""
    if form == "json":
        return json.dumps([_record(table) for table in tables], indent=2)
    return "\n\n".join(render(table, form) for table in tables)


def cell_text(cell: Any) -> str:
    """A cell as printed: one decimal for percentages, a dash for what is not there."""
    if cell is None:
        return "-"
    return f"{cell:.1f}" if isinstance(cell, float) else str(cell)


def _grid(table: Table) -> list[list[str]]:
    return [table.columns] + [[label, *map(cell_text, cells)] for label, cells in table.rows]


def _text(table: Table) -> str:
    grid = _grid(table)
    widths = [max(len(row[column]) for row in grid) for column in range(len(table.columns))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip()
        for row in grid
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join([table.title, *lines, *table.notes])


def _markdown(table: Table) -> str:
    head, *body = ("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
                   for row in _grid(table))  # fmt: skip
    rule = "|---|" + "---:|" * (len(table.columns) - 1)
    notes = ["", *table.notes] if table.notes else []
    return "\n".join([f"**{table.title}**", "", head, rule, *body, *notes])


def _latex(table: Table) -> str:
    head, *body = (" & ".join(cell.translate(_LATEX) for cell in row) + r" \\"
                   for row in _grid(table))  # fmt: skip
    notes = [f"% {note}" for note in table.notes]
    columns = "l" + "r" * (len(table.columns) - 1)
    return "\n".join(
        [f"% {table.title}", rf"\begin{{tabular}}{{{columns}}}", r"\toprule", head, r"\midrule"]
        + [*body, r"\bottomrule", r"\end{tabular}", *notes]
    )


def _record(table: Table) -> dict[str, Any]:
    rows = [dict(zip(table.columns, [label, *cells], strict=True)) for label, cells in table.rows]
    return {"title": table.title, "rows": rows, "notes": table.notes}
