"""Plans and results as tables."""

import shlex
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from dcft_cli.console.output import err, out, print_note
from dcft_cli.console.reports import calibration_fact, decision_facts, report_tables
from dcft_cli.errors import listed
from dcft_cli.recipe.methods import METHODS

if TYPE_CHECKING:
    from dcft_cli.exporting.export import ExportResult
    from dcft_cli.merging.merge import MergeResult
    from dcft_cli.prediction.stream import PredictionResult
    from dcft_cli.runs.evaluate import EvaluationResult
    from dcft_cli.runs.plan import TrainingPlan
    from dcft_cli.runs.push import PushResult
    from dcft_cli.runs.train import TrainingResult
    from dcft_cli.tasks.load import LoadedTask

MAX_CLASSES = 12


def show_plan(plan: "TrainingPlan", *, dry_run: bool) -> None:
    """Print what training will do; to stdout for a dry run, whose result it is."""
    recipe, adapter, preparation = plan.recipe, plan.adapter, plan.preparation
    training = recipe.training
    settings = recipe.adapter.own_settings()
    places = METHODS[recipe.adapter.method].places or recipe.adapter.targets
    task = preparation.loaded
    for note in preparation.notes:
        print_note(note)
    for note in plan.resumption.notes if plan.resumption and dry_run else ():
        print_note(note)  # a run reports them itself
    warmup = plan.warmup_steps
    if warmup >= plan.total_steps > 1:
        print_note(
            f"all {plan.total_steps} steps are warm-up, so the learning rate stays below "
            f"{training.learning_rate:g}; training.warmup_ratio=0.1 fits any number of steps"
        )
    head_rate = training.head_learning_rate
    kind = recipe.task.kind
    task_name = f"{recipe.task.name} ({kind})" if recipe.task.name else kind
    stream = out if dry_run else err
    stream.print(
        facts(
            ("base", f"{recipe.model.name} ({preparation.config.model_type}, "
                     f"{adapter.base_parameters:,} parameters, "
                     f"{recipe.model.quantization or recipe.model.dtype})"),
            ("task", f"{task_name}, best by {task.main_metric}"),
            *class_counts(task),
            ("data", "\n".join(_data_of(plan))),
            ("adapter", method_facts(recipe.adapter.method, settings)
                        + (f" in {len(adapter.modules)} layers ({' '.join(places)})"
                           if adapter.modules else "")),
            ("trained", f"{adapter.adapter_parameters:,} adapter "
                        f"+ {adapter.head_parameters:,} head parameters"),
            ("steps", f"{plan.total_steps:,} ({plan.steps_per_epoch:,} per epoch, batch size "
                      f"{plan.batch_size}, {warmup:,} warm-up), "
                      f"learning rate {training.learning_rate:g}"
                      + (f" (head {head_rate:g})" if head_rate else "")),
            ("device", f"{plan.machine.device_name}, {plan.machine.precision}"),
            ("output", str(plan.folder.path)),
            *((("resumed", f"from {plan.resumption.checkpoint.name}"),) if plan.resumption else ()),
        )
    )  # fmt: skip
    if not dry_run:
        stream.print()


def _data_of(plan: "TrainingPlan") -> list[str]:
    """Return where the rows come from, and how many there are."""
    task, evaluation_sets = plan.preparation.loaded, plan.preparation.evaluation_sets
    assert task.train is not None
    read = _counted(len(task.train.dataset), plan.train_rows)
    lines = [f"{task.train.source}: {read}, {plan.tokens:,} tokens per epoch"]
    for eval_set in evaluation_sets:
        scored = task.validation[eval_set.name]
        read = _counted(len(scored.dataset), len(eval_set.features))
        lines.append(f"{scored.source}: {read} to score")
    return lines if evaluation_sets else [*lines, "no validation data: the last checkpoint is kept"]


def method_facts(method: str, settings: Mapping[str, Any]) -> str:
    """Return a method and its main settings in one line."""
    if method == "dcft":
        kernel, stride = settings["kernel_size"], settings.get("stride")
        return (
            f"DCFT kernel {kernel}, stride {stride or kernel}, rank {settings['rank']}, "
            f"scale {settings['scale']:g}"
        )
    shown = {k: v for k, v in settings.items() if k not in ("targets", "file_dtype") and v}
    numbers = {k: f"{v:g}" if isinstance(v, int | float) else str(v) for k, v in shown.items()}
    return ", ".join([method, *(f"{key} {value}" for key, value in numbers.items())])


def show_training(result: "TrainingResult") -> None:
    """Print scores and baselines, the size of the adapter, and the commands to run next."""
    metrics = result.metrics
    if metrics["metrics"]:
        out.print(_scores(metrics))
        chosen = decision_facts(metrics["decision"], metrics["chosen"])
        if chosen and "temperature" in metrics["chosen"]:
            name, error = calibration_fact(next(iter(metrics["reports"].values())))
            chosen.append((name, f"{error}, on the rows it was fitted to"))
        if chosen:
            out.print("", facts(*chosen))
        out.print()
    if notes := metrics.get("notes", []):
        for note in notes:
            print_note(note)
        err.print()
    speed = metrics["tokens_per_second"]
    adapter = result.folder.adapter
    seconds = timedelta(seconds=round(metrics["seconds"]))
    out.print(
        facts(
            ("adapter", f"{adapter} ({decimal(adapter.stat().st_size)})"),
            ("time", f"{seconds}" + (f", {speed:,.0f} tokens/s" if speed else "")),
        )
    )
    folder = shlex.quote(str(result.folder.path))
    merged = shlex.quote(f"{result.folder.path}-merged")
    commands = (f"eval {folder}", f"predict {folder} FILE", f"merge {folder} {merged}")
    lines = "".join(f"\n  dcft {command}" for command in commands)
    out.print(f"\nNext:{lines}", markup=False)


def _scores(metrics: Mapping[str, Any]) -> Table:
    """Return the scores of the baselines, of the best step, and of the last."""
    baselines, best = metrics.get("baselines", {}), metrics["metrics"]
    columns = {
        "constant": baselines.get("constant"),
        "fitted head": baselines.get("fitted_head"),
        f"best (step {metrics['best_step']})": best,
    }
    if metrics["last_step"] != metrics["best_step"]:
        columns[f"last (step {metrics['last_step']})"] = metrics["last_metrics"]
    columns = {name: scores for name, scores in columns.items() if scores}
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("")
    for name in columns:
        style = "green" if name.startswith("best") else None
        table.add_column(name, justify="right", style=style)
    for name in best:
        values = (scores.get(name) for scores in columns.values())
        table.add_row(name, *("" if value is None else f"{value:.4f}" for value in values))
    return table


def show_evaluation(result: "EvaluationResult", predictions: Path | None) -> None:
    """Print scores and data, where predictions fail, and the file with the predictions."""
    width = max(map(len, result.rows)) if len(result.rows) > 1 else 0
    rows = [
        (f"{name:<{width}}  " if width else "") + f"{result.data[name]}: {count:,} rows"
        for name, count in result.rows.items()
    ]
    out.print(
        facts(
            ("adapter", str(result.adapter)),
            ("base", result.base),
            ("data", "\n".join(rows)),
            *decision_facts(result.decision, result.chosen),
            *((name, f"{value:.4f}") for name, value in result.metrics.items()),
            *(map(calibration_fact, result.reports.values()) if len(result.reports) == 1 else ()),
        )
    )
    if result.reports:
        out.print(report_tables(result.reports))
    if predictions is not None:
        out.print("", facts(("predictions", str(predictions))))


def show_prediction(result: "PredictionResult") -> None:
    """Print what was written, unless it went to stdout itself."""
    if result.blank:
        print_note(f"blank rows left out: {result.blank:,}")
    if result.output is not None:
        out.print(
            f"{result.output}: {result.rows:,} rows, {result.seconds:.1f} s, "
            f"{result.rows / result.seconds:,.0f} rows/s"
        )


def show_merge(result: "MergeResult") -> None:
    """Print where the merged model is, how to load it, and how it was verified."""
    merged = f"{result.folder} ({result.layers} layers, {decimal(result.bytes)})"
    stored = result.dtype
    if result.rounding is not None:
        stored += f": rounding to it changes logits by up to {result.rounding:.1e}"
    out.print(
        facts(
            ("merged", merged),
            ("base", result.base),
            ("verified", f"largest logit difference to base + adapter: {result.difference:.2e}"),
            ("stored", stored),
            ("load", f'{result.model_class}.from_pretrained("{result.folder}")'),
        )
    )


def show_push(result: "PushResult") -> None:
    """Print where the adapter is and how to use it; the model card if nothing was sent."""
    for note in result.notes:
        print_note(note)
    if result.url is None:
        out.print(Text(result.card))
        return
    out.print(
        facts(
            ("pushed", f"{result.repository} ({decimal(result.bytes)})"),
            ("commit", result.url),
            ("load", f"dcft predict {result.address} --text TEXT"),
        )
    )


def show_export(result: "ExportResult") -> None:
    """Print what was written, how it was verified, and how to load it."""
    what, load = "ONNX model", f'onnxruntime.InferenceSession("{result.folder}/model.onnx")'
    if result.to == "peft":
        what = f"PEFT adapter, {result.method}"
        if result.ranks is not None:
            smallest, largest = result.ranks
            ranks = f"{smallest}" if smallest == largest else f"{smallest} to {largest}"
            what = f"LoRA of rank {ranks}"
        load = f'PeftModel.from_pretrained(base, "{result.folder}")'
    if result.local_base is not None:
        named = (
            "adapter_config.json and README.md name" if result.to == "peft" else "README.md names"
        )
        print_note(
            f"{named} the base model by its path on this machine, {result.local_base}. Before "
            "you share the folder, replace it, or export with --base and its name on the Hub."
        )
    out.print(
        facts(
            ("exported", f"{result.folder} ({what}, {result.layers} layers, "
                         f"{decimal(result.bytes)})"),
            ("verified", f"largest logit difference to base + adapter: {result.difference:.2e}"),
            ("load", load),
            ("script", f"{result.folder}/README.md"),
        )
    )  # fmt: skip


def facts(*pairs: tuple[str, str]) -> Table:
    """Return names and values, one pair per line."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in pairs:
        table.add_row(name, Text(value))
    return table


def _counted(rows: int, windows: int) -> str:
    """Return the number of rows and, if inputs are split, that of windows."""
    return f"{rows:,} rows" + (f" in {windows:,} windows" if windows != rows else "")


def class_counts(loaded: "LoadedTask") -> list[tuple[str, str]]:
    """Return the classes with their training rows, which reveals misspelled labels, and weights."""
    labels, rows = loaded.task.labels, loaded.train
    if not labels or rows is None:
        return []
    counts = loaded.task.label_counts(rows.dataset)
    weights = loaded.task.class_weights
    classes = [
        f"{name} {counts[n]:,}" + ("" if weights is None else f" (weight {weights[n]:.3g})")
        for n, name in enumerate(labels)
    ]
    part = " (in the training part)" if loaded.holds_out else ""
    return [("classes", listed(classes, MAX_CLASSES) + part)]
