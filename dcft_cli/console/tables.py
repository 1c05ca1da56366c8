"""Plans and results as tables."""

import math
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from dcft_cli.console.output import err, out, print_note

if TYPE_CHECKING:
    from dcft_cli.merging.merge import MergeResult
    from dcft_cli.runs.evaluate import EvaluationResult
    from dcft_cli.runs.plan import TrainingPlan
    from dcft_cli.runs.train import TrainingResult

_SHOWN_CLASSES = 12


def show_plan(plan: "TrainingPlan", *, dry_run: bool) -> None:
    """What training will do. A dry run's plan is its result, so it goes to stdout."""
    recipe, adapter, preparation = plan.recipe, plan.adapter, plan.preparation
    training, config = recipe.training, adapter.config
    task = preparation.loaded
    for note in preparation.notes:
        print_note(note)
    rows = [f"{_origin(task.train)}: {plan.train_rows:,} rows, {plan.tokens:,} tokens an epoch"]
    for held in preparation.evaluation_sets:
        rows.append(f"{_origin(task.validation[held.name])}: {len(held.features):,} rows to score")
    if not preparation.evaluation_sets:
        rows.append("no validation data: the last checkpoint is kept")
    warmup = plan.arguments.warmup_steps
    if warmup >= plan.total_steps > 1:
        print_note(
            f"all {plan.total_steps} steps are warm-up, so the learning rate stays below "
            f"{training.learning_rate:g}; training.warmup_ratio=0.1 fits any number of steps"
        )
    head_rate = training.head_learning_rate
    (out if dry_run else err).print(
        facts(
            ("base", f"{recipe.model.name} ({preparation.config.model_type}, "
                     f"{_short(adapter.base_parameters)} parameters, "
                     f"{recipe.model.quantization or recipe.model.dtype})"),
            ("task", f"{_task(recipe.task.name, recipe.task.kind)}, best by {task.main_metric}"),
            *_classes(plan),
            ("data", "\n".join(rows)),
            ("adapter", f"DCFT kernel {config.kernel_size}, stride {config.effective_stride}, rank "
                        f"{config.rank}, scale {config.scale:g} in {len(adapter.modules)} layers "
                        f"({' '.join(config.targets)})"),
            ("trained", f"{adapter.adapter_parameters:,} adapter parameters "
                        f"+ {adapter.head_parameters:,} outside the encoder"),
            ("steps", f"{plan.total_steps:,} of batch {plan.batch_size} "
                      f"({plan.steps_per_epoch:,} an epoch), {int(warmup):,} to warm up, "
                      f"learning rate {training.learning_rate:g}"
                      + (f", of the head {head_rate:g}" if head_rate else "")),
            ("device", f"{plan.device}, {plan.precision}"),
            ("output", str(plan.folder.path)),
        ),
        "",
    )  # fmt: skip


def show_training(result: "TrainingResult") -> None:
    """Scores beside what is reached without training, what was trained, and what to type next."""
    metrics = result.metrics
    best, last = metrics["metrics"], metrics["last_metrics"]
    if best:
        columns = {
            "constant": metrics.get("baselines", {}).get("constant"),
            "fitted head": metrics.get("baselines", {}).get("fitted_head"),
            f"best (step {metrics['best_step']})": best,
            f"last (step {metrics['last_step']})": last,
        }
        columns = {name: scores for name, scores in columns.items() if scores}
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("")
        for name in columns:
            style = "green" if name.startswith("best") else None
            table.add_column(name, justify="right", style=style)
        for name in best:
            values = (scores.get(name) for scores in columns.values())
            table.add_row(name, *("" if value is None else f"{value:.4f}" for value in values))
        out.print(table)
    for note in metrics.get("notes", []):
        print_note(note)
    speed = metrics["tokens_per_second"]
    out.print(
        f"{metrics['adapter_parameters']:,} adapter + {metrics['head_parameters']:,} head "
        f"parameters in {in_bytes(result.folder.adapter.stat().st_size)}; "
        f"{metrics['seconds']:.0f} s" + (f", {speed:,.0f} tokens/s" if speed else "")
    )
    folder = result.folder.path
    base = metrics["base"]
    out.print(
        f"\nNext:\n  dcft inspect {folder}\n  dcft eval {folder}\n"
        f"  dcft merge {base} {folder} {folder}-merged"
    )


def show_evaluation(result: "EvaluationResult") -> None:
    """Scores, and on what."""
    rows = ", ".join(
        f"{result.origins[name]} ({count:,} rows)" for name, count in result.rows.items()
    )
    out.print(
        facts(
            ("adapter", str(result.adapter)),
            ("base", result.base),
            ("data", rows),
            *((name, f"{value:.4f}") for name, value in result.metrics.items()),
        )
    )


def show_merge(result: "MergeResult") -> None:
    """Where the model is, how it is loaded, and the proof."""
    merged = f"{result.folder} ({in_bytes(result.bytes)}, {result.layers} layers folded)"
    stored = result.dtype
    if result.rounding is not None:
        stored += f": rounding to it moves logits by up to {result.rounding:.1e}"
    out.print(
        facts(
            ("merged", merged),
            ("proof", f"largest logit difference to base + adapter: {result.difference:.2e}"),
            ("stored", stored),
            ("load", f'{result.model_class}.from_pretrained("{result.folder}")'),
        )
    )


def facts(*pairs: tuple[str, str]) -> Table:
    """Names and values, one pair a line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, Text(value))
    return table


def _classes(plan: "TrainingPlan") -> list[tuple[str, str]]:
    """The classes and their training rows: a misspelt label shows as a class of its own."""
    loaded = plan.preparation.loaded
    labels, rows = loaded.task.labels, loaded.train
    if not labels or rows is None:
        return []
    counts = loaded.task.label_counts(rows.dataset)
    listed = [f"{name} {counts[n]:,}" for n, name in enumerate(labels[:_SHOWN_CLASSES])]
    if len(labels) > _SHOWN_CLASSES:
        listed.append(f"and {len(labels) - _SHOWN_CLASSES} more")
    return [("classes", ", ".join(listed))]


def _origin(rows: Any) -> str:
    return str(rows.source)


def _task(name: str | None, kind: str) -> str:
    return f"{name} ({kind})" if name else kind


def _short(number: int) -> str:
    """22,713,985 as 22.7M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def in_bytes(number: int) -> str:
    """57272 as 57.3 kB."""
    step = min(int(math.log10(max(number, 1)) // 3), 3)
    return f"{number / 1000**step:.{1 if step else 0}f} {('bytes', 'kB', 'MB', 'GB')[step]}"
