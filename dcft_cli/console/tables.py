"""Plans and results as tables."""

from typing import TYPE_CHECKING

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from dcft_cli.console.output import err, out, print_note

if TYPE_CHECKING:
    from dcft_cli.merging.merge import MergeResult
    from dcft_cli.prediction.stream import PredictionResult
    from dcft_cli.runs.evaluate import EvaluationResult
    from dcft_cli.runs.plan import TrainingPlan
    from dcft_cli.runs.train import TrainingResult

_MAX_CLASSES = 12


def show_plan(plan: "TrainingPlan", *, dry_run: bool) -> None:
    """Print what training will do; to stdout for a dry run, whose result it is."""
    recipe, adapter, preparation = plan.recipe, plan.adapter, plan.preparation
    training, config = recipe.training, adapter.config
    task = preparation.loaded
    for note in preparation.notes:
        print_note(note)
    assert task.train is not None
    rows = [f"{task.train.source}: {plan.train_rows:,} rows, {plan.tokens:,} tokens per epoch"]
    for eval_set in preparation.evaluation_sets:
        origin = task.validation[eval_set.name].source
        rows.append(f"{origin}: {len(eval_set.features):,} rows to score")
    if not preparation.evaluation_sets:
        rows.append("no validation data: the last checkpoint is kept")
    warmup = plan.warmup_steps
    if warmup >= plan.total_steps > 1:
        print_note(
            f"all {plan.total_steps} steps are warm-up, so the learning rate stays below "
            f"{training.learning_rate:g}; training.warmup_ratio=0.1 fits any number of steps"
        )
    head_rate = training.head_learning_rate
    kind = recipe.task.kind
    task_name = f"{recipe.task.name} ({kind})" if recipe.task.name else kind
    (out if dry_run else err).print(
        facts(
            ("base", f"{recipe.model.name} ({preparation.config.model_type}, "
                     f"{adapter.base_parameters:,} parameters, "
                     f"{recipe.model.quantization or recipe.model.dtype})"),
            ("task", f"{task_name}, best by {task.main_metric}"),
            *_classes(plan),
            ("data", "\n".join(rows)),
            ("adapter", f"DCFT kernel {config.kernel_size}, stride {config.effective_stride}, rank "
                        f"{config.rank}, scale {config.scale:g} in {len(adapter.modules)} layers "
                        f"({' '.join(config.targets)})"),
            ("trained", f"{adapter.adapter_parameters:,} adapter "
                        f"+ {adapter.head_parameters:,} head parameters"),
            ("steps", f"{plan.total_steps:,} ({plan.steps_per_epoch:,} per epoch, batch size "
                      f"{plan.batch_size}, {warmup:,} warm-up), "
                      f"learning rate {training.learning_rate:g}"
                      + (f" (head {head_rate:g})" if head_rate else "")),
            ("device", f"{plan.machine.device_name}, {plan.machine.precision}"),
            ("output", str(plan.folder.path)),
        ),
        "",
    )  # fmt: skip


def show_training(result: "TrainingResult") -> None:
    """Print scores and baselines, the size of the adapter, and the commands to run next."""
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
        f"parameters in {decimal(result.folder.adapter.stat().st_size)}; "
        f"{metrics['seconds']:.0f} s" + (f", {speed:,.0f} tokens/s" if speed else "")
    )
    folder = result.folder.path
    base = metrics["base"]
    out.print(
        f"\nNext:\n  dcft inspect {folder}\n  dcft eval {folder}\n"
        f"  dcft merge {base} {folder} {folder}-merged"
    )


def show_evaluation(result: "EvaluationResult") -> None:
    """Print scores and data."""
    rows = ", ".join(f"{result.data[name]} ({count:,} rows)" for name, count in result.rows.items())
    out.print(
        facts(
            ("adapter", str(result.adapter)),
            ("base", result.base),
            ("data", rows),
            *((name, f"{value:.4f}") for name, value in result.metrics.items()),
        )
    )


def show_prediction(result: "PredictionResult") -> None:
    """Print what was written, unless it went to stdout itself."""
    if result.blank:
        print_note(f"blank rows left out: {result.blank:,}")
    if result.output is not None:
        out.print(
            f"{result.rows:,} rows in {result.output}; {result.seconds:.1f} s, "
            f"{result.rows / result.seconds:,.0f} rows/s"
        )


def show_merge(result: "MergeResult") -> None:
    """Print where the merged model is, how to load it, and how it was verified."""
    merged = f"{result.folder} ({decimal(result.bytes)}, {result.layers} layers merged)"
    stored = result.dtype
    if result.rounding is not None:
        stored += f": rounding to it changes logits by up to {result.rounding:.1e}"
    out.print(
        facts(
            ("merged", merged),
            ("verified", f"largest logit difference to base + adapter: {result.difference:.2e}"),
            ("stored", stored),
            ("load", f'{result.model_class}.from_pretrained("{result.folder}")'),
        )
    )


def facts(*pairs: tuple[str, str]) -> Table:
    """Return names and values, one pair per line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, Text(value))
    return table


def _classes(plan: "TrainingPlan") -> list[tuple[str, str]]:
    """Return the classes with their training rows, which reveals misspelled labels."""
    loaded = plan.preparation.loaded
    labels, rows = loaded.task.labels, loaded.train
    if not labels or rows is None:
        return []
    counts = loaded.task.label_counts(rows.dataset)
    listed = [f"{name} {counts[n]:,}" for n, name in enumerate(labels[:_MAX_CLASSES])]
    if len(labels) > _MAX_CLASSES:
        listed.append(f"and {len(labels) - _MAX_CLASSES} more")
    return [("classes", ", ".join(listed))]
