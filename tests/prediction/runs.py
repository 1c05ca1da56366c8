"""Adapters of every family, trained for a few steps."""

from pathlib import Path

from dcft_cli.recipe import load_recipe
from tests.jobs import recipe, train
from tests.samples import rows_of, write_rows

# Tasks without a packaged recipe, with their text and label columns.
_COLUMNS = {"token_classification": ("tokens", "ner_tags"), "multi_label": ("text", "labels")}
_RECIPE = """
model: {{name: {base}}}
task: {{type: {task}}}
data: {{train: {rows}, validation: {rows}, text: {text}, label: {label}, max_length: 48}}
training: {{max_steps: 6, learning_rate: 0.1, device: cpu}}
"""


def train_task(task: str, base: Path, root: Path) -> Path:
    """Train a task in its folder below `root`, if that is not done yet; return the run folder."""
    folder = root / task
    if folder.exists():
        return folder
    if task in _COLUMNS:
        text, label = _COLUMNS[task]
        rows = write_rows(root / f"{task}.jsonl", rows_of(task, 30))
        path = root / f"{task}.yaml"
        path.write_text(_RECIPE.format(base=base, task=task, rows=rows, text=text, label=label))
        loaded = load_recipe(str(path))
    else:
        loaded = recipe(task, root, base, "training.learning_rate=0.1")
    train(loaded, folder)
    return folder
