"""A recipe that `dcft init` wrote, with the reasons for it."""

import shlex
from typing import TYPE_CHECKING

from dcft_cli.console.output import out, print_note
from dcft_cli.console.tables import class_counts, facts
from dcft_cli.recipe.settings import SCHEMA_FILE

if TYPE_CHECKING:
    from dcft_cli.runs.draft import Draft


def show_draft(draft: "Draft") -> None:
    """Print what was guessed and why, and the commands to run next."""
    guess, loaded, data = draft.guess, draft.loaded, draft.recipe.data
    for note in loaded.notes:
        print_note(note)
    columns = ", ".join(draft.columns)

    def with_reason(names: tuple[str, ...], key: str) -> str:
        reason = guess.reasons.get(key)
        return ", ".join(names) + (f" ({reason})" if reason else "")

    rows = [("data", f"{data.train}: {draft.rows:,} rows, columns {columns}"),
            ("text", with_reason(guess.text, "text")),
            ("label", with_reason(guess.label, "label")),
            ("task", guess.task),
            *class_counts(loaded)]  # fmt: skip
    for scored in loaded.validation.values():
        rows.append(("scored", f"{scored.source}: {len(scored.dataset):,} rows"))
    path = str(draft.path)
    rows += [
        ("recipe", path),
        ("schema", f"{draft.path.with_name(SCHEMA_FILE)} (completion in editors)"),
    ]
    command = f"dcft train {shlex.quote(path)}"
    out.print(facts(*rows), "", f"Next:\n  {command} --dry-run\n  {command}", sep="\n")
