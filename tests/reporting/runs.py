"""Run folders with chosen scores, as `dcft train` writes them."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dcft_cli.recipe import dump_recipe, load_recipe

RECIPE = """
model: {name: some/model}
task: {type: classification}
data: {train: rows.csv, validation: dev.csv, text: text, label: label}
"""


def write_run(
    folder: Path,
    *overrides: str,
    best: float = 0.75,
    last: float | None = None,
    seed: int = 1,
    finished: int = 0,
    recipe: str = RECIPE,
    scores: Sequence[tuple[int, float]] = (),
    **metrics: Any,
) -> Path:
    """Write the files of a finished run with these scores.

    Args:
        recipe: YAML text, or the name of a packaged recipe.
        finished: time of metrics.json.
        scores: by step, for the log; by default the last score at step 6.
        metrics: replaces entries of metrics.json.
    """
    folder.mkdir(parents=True)
    if "\n" in recipe:
        (folder / "recipe.yaml").write_text(recipe)
        recipe = str(folder / "recipe.yaml")
    loaded = load_recipe(recipe, [f"training.seed={seed}", *overrides]).recipe
    (folder / "recipe.yaml").write_text(dump_recipe(loaded))
    last = best if last is None else last
    content = {
        "task": loaded.task.name or loaded.task.kind,
        "main_metric": "accuracy",
        "metrics": {"accuracy": best},
        "best_step": 3,
        "last_metrics": {"accuracy": last},
        "last_step": 6,
        "baselines": {"constant": {"accuracy": 0.5}, "fitted_head": {"accuracy": 0.6}},
        "adapter_parameters": 828,
        "head_parameters": 34,
        "train_rows": 24,
        "validation_rows": {"validation": 12},
        "row_hashes": {"train": "t", "validation": {"validation": "v"}},
        "seconds": 10.0,
        "peak_device_bytes": None,
        "device": "CPU",
        "seed": seed,
    } | metrics
    if content["main_metric"] != "accuracy":
        for part in ("metrics", "last_metrics"):
            content[part][content["main_metric"]] = content[part].pop("accuracy")
    (folder / "metrics.json").write_text(json.dumps(content))
    os.utime(folder / "metrics.json", (finished, finished))
    lines = [
        {"step": step, "scores": {content["main_metric"]: value}}
        for step, value in scores or [(6, last)]
    ]
    log = [{"step": 0, "baseline": "constant", "scores": {"accuracy": 0.5}}, *lines]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    (folder / "adapter.safetensors").write_bytes(b"0" * 1234)
    return folder
