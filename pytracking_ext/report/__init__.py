"""One self-contained HTML page that compares trackers on a benchmark."""

from pytracking_ext.report.page import write_report

__all__ = ["write_report"]
