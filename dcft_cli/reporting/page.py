"""A report as one HTML page that loads nothing: tables, figures, and how to repeat the runs."""

import shlex
from collections.abc import Iterable, Iterator
from html import escape
from importlib.metadata import version
from importlib.resources import files
from platform import python_version

from dcft_cli import __version__
from dcft_cli.reporting.columns import columns
from dcft_cli.reporting.figures import draw
from dcft_cli.reporting.notes import excluded_lines, reading, table_notes
from dcft_cli.reporting.report import Report, TableReport

_LIBRARIES = ("torch", "transformers", "scipy", "matplotlib")


def to_page(report: Report) -> str:
    """Return the page.

    Raises:
        UserError: matplotlib is not installed.
    """
    runs = sum(len(table.table.runs) for table in report.tables)
    groups = sum(len(table.rows) for table in report.tables)
    title = f"Comparison of {_counted(runs, 'run')} in {_counted(groups, 'group')}"
    style = files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    body = [
        f"<h1>{title}</h1>",
        f'<p class="muted">Runs in {escape(", ".join(report.sources))}. '
        "Runs of a group differ only by their seed; groups of a table have the same task, data "
        "and base model, and are named by the settings that differ.</p>",
        *(part for n, table in enumerate(report.tables) for part in _table(table, f"t{n}-")),
        *_ending(report),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
        + "\n".join(body)
        + "\n</body>\n</html>\n"
    )


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _table(report: TableReport, prefix: str) -> Iterator[str]:
    title = escape(f"{report.title}: {report.metric}")
    yield f"<section>\n<h2>{title.replace('/', '/<wbr>')}</h2>"
    found = columns(report)
    yield f'<div class="scroll" role="region" aria-label="{title}" tabindex="0">'
    yield "<table>\n<thead>\n<tr>"
    for column in found:
        yield f'<th scope="col">{escape(column.heading)}</th>'
    yield "</tr>\n</thead>\n<tbody>"
    for number, (name, *cells) in enumerate(zip(*(c.cells for c in found), strict=True)):
        kind = ' class="baseline"' if number < len(report.baselines) else ""
        values = "".join(f"<td>{_broken(cell)}</td>" for cell in cells)
        yield f'<tr{kind}><th scope="row">{escape(name)}</th>{values}</tr>'
    yield "</tbody>\n</table>\n</div>"
    yield _list(table_notes(report))
    yield '<div class="figures">'
    for drawing in draw(report, prefix):
        caption = escape(drawing.caption)
        yield f"<figure>\n{drawing.svg}<figcaption>{caption}</figcaption>\n</figure>"
    yield "</div>\n</section>"


def _ending(report: Report) -> Iterator[str]:
    yield f"<h2>How to read this</h2>\n{_list(reading())}"
    if lines := excluded_lines(report):
        yield f"<h2>Not counted</h2>\n{_list(lines)}"
    yield f"<h2>Repeat a run</h2>\n<pre>{escape(commands(report))}</pre>"
    versions = ", ".join(f"{name} {version(name)}" for name in _LIBRARIES)
    yield (
        f'<p class="muted">Page made by dcft {__version__} with Python {python_version()}, '
        f"{versions}.</p>"
    )


def commands(report: Report) -> str:
    """Return the commands that train every counted run again, each into a new folder."""
    folders = [run.folder for table in report.tables for run in table.table.runs]
    return "\n".join(
        shlex.join(["dcft", "train", str(folder / "recipe.yaml"), "--output", f"{folder}-again"])
        for folder in folders
    )


def _broken(cell: str) -> str:
    """Return a cell with what is in brackets on a line of its own, so that columns are narrow."""
    return escape(cell).replace(" [", "<br>[").replace(" (", "<br>(").replace("; ", "<br>")


def _list(lines: Iterable[str]) -> str:
    items = "\n".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<ul class="notes">\n{items}\n</ul>' if items else ""
