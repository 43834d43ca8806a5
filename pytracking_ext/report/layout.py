"""The parts of a report's page: the document, its sections, tables and charts."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape
from pathlib import Path

from ltr_ext.admin.files import write_text
from pytracking_ext.analysis.tables import Table, cell_text
from pytracking_ext.report.charts import legend, line_chart
from pytracking_ext.report.plots import Plot

HERE = Path(__file__).parent


def write_page(path: Path, title: str, sections: Iterable[str]) -> None:
    """Writes a page that needs no other file and no network."""
    style, script = ((HERE / name).read_text("utf-8") for name in ("style.css", "script.js"))
    write_text(
        path,
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        f'<header><h1>{escape(title)}</h1><button type="button" id="theme">light / dark</button>'
        f"</header>{''.join(sections)}<script>{script}</script></body></html>",
    )


def section(title: str, content: str) -> str:
    """A section; nothing without content."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def table_html(table: Table, own: int | None = None) -> str:
    """A sortable table; rows after the first ``own`` are published ones."""
    head = "".join(
        f'<th scope="col"><button type="button">{escape(column)}</button></th>'
        for column in table.columns
    )
    rows = []
    for index, (label, cells) in enumerate(table.rows):
        published = ' class="published"' if own is not None and index >= own else ""
        body = "".join(f"<td>{escape(text)}</td>" for text in (label, *map(cell_text, cells)))
        rows.append(f"<tr{published}>{body}</tr>")
    return (
        f'<p class="faint">{escape(table.title)}</p><div class="scroll"><table><thead><tr>{head}'
        f"</tr></thead><tbody>{''.join(rows)}</tbody></table></div>{notes_html(table.notes)}"
    )


def folded_table(table: Table) -> str:
    """A sortable table that a click on its title opens."""
    return f"<details><summary>{escape(table.title)}</summary>{table_html(table)}</details>"


def notes_html(notes: Iterable[str]) -> str:
    """A paragraph for each note."""
    return "".join(f'<p class="note">{escape(note)}</p>' for note in notes)


def plots_html(plots: list[Plot]) -> str:
    """The plots beside each other, under the names of their lines."""
    charts = "".join(line_chart(plot.lines, plot.x_label, plot.y_label) for plot in plots)
    return f'{legend(list(plots[0].lines))}<div class="charts">{charts}</div>'
