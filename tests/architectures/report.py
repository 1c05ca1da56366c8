"""docs/architectures.md, from what the program finds: `python -m tests.architectures.report`.

With `--write` the page is written, else printed.
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path
from string import Template

import transformers

from tests.architectures.describe import (
    BOTH,
    COLUMNS,
    DECODER,
    ENCODER,
    Architecture,
    architecture,
)
from tests.architectures.exceptions import (
    NOTES,
    ONLY_TRAINS,
    SEES_PADDING,
    UNREACHED,
    UNREACHED_BY_ANSWERS,
    UNREACHED_BY_TOKENS,
    WITHOUT_ROLES,
)
from tests.architectures.tiny import MODEL_TYPES, UNBUILDABLE

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
TEMPLATE = Path(__file__).with_name("page.md")
COMMAND = "python -m tests.architectures.report --write"
CROSS = "cross-attention"
REMARK = "†"
PADDING = "a text's class depends on the other texts of its batch"
TITLES = {ENCODER: "Encoders", BOTH: "Encoder-decoders", DECODER: "Decoders"}


def page() -> str:
    found = [architecture(model_type) for model_type in MODEL_TYPES]
    kinds = {kind: [one for one in found if one.kind == kind] for kind in TITLES}
    return Template(TEMPLATE.read_text("utf-8")).substitute(
        count=len(found),
        version=transformers.__version__,
        counts="\n".join(_count(TITLES[kind], ours) for kind, ours in kinds.items()),
        unbuildable=", ".join(f"`{name}`" for name in UNBUILDABLE if name in MODEL_TYPES),
        remark=REMARK,
        sections="\n".join(_section(kind, ours) for kind, ours in kinds.items()),
        heads="\n".join(_head_rows(found)),
        command=COMMAND,
    )


def version_of(text: str) -> str:
    """The version of transformers that a page was made with."""
    match = re.search(r"transformers (\d+\.\d+\.\d+\S*)", text)
    assert match
    return match.group(1)


def types_of(text: str) -> list[str]:
    """The types in the tables of layer names."""
    names = text.partition("## Layer names")[2].partition("## Task heads")[0]
    cells = re.findall(r"^\| (`[^|]*?) \|", names, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def share(found: Iterable[Architecture]) -> tuple[int, int]:
    """How many types have all default targets, and of how many."""
    complete = [one.complete for one in found]
    return sum(complete), len(complete)


def remarks_on(one: Architecture) -> list[str]:
    name = one.model_type
    remarks = [
        UNBUILDABLE.get(name) and f"not run: {UNBUILDABLE[name]}",
        WITHOUT_ROLES.get(name),
        *(
            f"some layers get no adapter for {task}: {reasons[name]}"
            for task, reasons in _unreached(name).items()
        ),
        ONLY_TRAINS.get(name),
        name in SEES_PADDING and f"{PADDING}: {SEES_PADDING[name]}",
        *(note for note, types in NOTES.items() if name in types),
    ]
    if one.kind != BOTH and one.names.get(CROSS):
        remarks.append(f"also has {CROSS}: {one.names[CROSS]}")
    return [remark for remark in remarks if remark]


def _unreached(name: str) -> dict[str, dict[str, str]]:
    """By which tasks' losses; one reason is given once."""
    tasks = {
        "classification": UNREACHED,
        "token classification": UNREACHED_BY_TOKENS,
        "question answering": UNREACHED_BY_ANSWERS,
    }
    ours = {task: reasons for task, reasons in tasks.items() if name in reasons}
    if len(ours) == len(tasks) and len({reasons[name] for reasons in ours.values()}) == 1:
        return {"any task": UNREACHED}
    return ours


def _count(title: str, found: list[Architecture]) -> str:
    complete, count = share(found)
    return f"| [{title}](#{title.lower()}) | {count} | {complete} ({complete / count:.0%}) |"


def _section(kind: str, found: list[Architecture]) -> str:
    columns = [name for name in COLUMNS if name != CROSS or kind == BOTH]
    groups: dict[tuple[str, ...], list[Architecture]] = {}
    for one in found:
        groups.setdefault(tuple(one.names.get(name, "") for name in columns), []).append(one)
    titles = ["types", *(_title(name) for name in columns)]
    table = [_row(titles), _row(["---"] * len(titles))]
    for cells, same in sorted(groups.items(), key=lambda group: -len(group[1])):
        table.append(_row([", ".join(map(_marked, same)), *(cell or "-" for cell in cells)]))
    remarks: dict[str, list[str]] = {}
    for one in found:
        for remark in remarks_on(one):
            remarks.setdefault(remark, []).append(f"`{one.model_type}`")
    notes = [f"- {', '.join(names)}: {remark}." for remark, names in remarks.items()]
    return "\n".join([f"### {TITLES[kind]}", "", *table, "", *notes, ""])


def _title(column: str) -> str:
    ends = (", ".join(f"`{role}`" for role in roles) for roles in COLUMNS[column])
    return "`CROSS`" if column == CROSS else " → ".join(ends)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _marked(one: Architecture) -> str:
    return f"`{one.model_type}`" + (f" {REMARK}" if remarks_on(one) else "")


def _head_rows(found: list[Architecture]) -> list[str]:
    groups: dict[tuple[bool, bool], list[str]] = {}
    for one in found:
        groups.setdefault((one.tokens, one.questions), []).append(f"`{one.model_type}`")
    return [
        _row([*("yes" if has else "-" for has in heads), ", ".join(names)])
        for heads, names in sorted(groups.items(), reverse=True)
    ]


def main() -> None:
    transformers.utils.logging.set_verbosity_error()
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page(), "utf-8")
    else:
        sys.stdout.write(page())


if __name__ == "__main__":
    main()
