"""Files of a report."""

from pathlib import Path

from dcft_cli.atomic import atomic_path
from dcft_cli.reporting.markdown import to_markdown
from dcft_cli.reporting.page import to_page
from dcft_cli.reporting.report import Report
from dcft_cli.reporting.table_csv import to_csv


def write_report(
    report: Report, *, html: Path | None, markdown: Path | None, csv: Path | None
) -> list[Path]:
    """Write the files that are asked for and return their paths; existing ones are replaced.

    Raises:
        UserError: matplotlib, which draws the page's figures, is not installed.
    """
    written = []
    for path, to_text in ((html, to_page), (markdown, to_markdown), (csv, to_csv)):
        if path is not None:
            text = to_text(report)
            with atomic_path(path) as part:
                part.write_text(text, encoding="utf-8")
            written.append(path)
    return written
