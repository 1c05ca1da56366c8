"""Plans, results and inspections as tables."""

import math
from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from dcft_cli.console.output import err, out, print_note

if TYPE_CHECKING:
    from dcft_cli.runs.evaluation import EvaluationResult
    from dcft_cli.runs.inspection import Inspection
    from dcft_cli.runs.merging import MergeResult
    from dcft_cli.runs.training import TrainingResult
    from dcft_cli.runs.training_plan import TrainingPlan

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
    (out if dry_run else err).print(
        _facts(
            ("base", f"{recipe.model.name} ({preparation.config.model_type}, "
                     f"{_short(adapter.base_parameters)} parameters, {recipe.model.dtype})"),
            ("task", f"{_task(recipe.task.name, recipe.task.kind)}, best by {task.main_metric}"),
            *_classes(plan),
            ("data", "\n".join(rows)),
            ("adapter", f"DCFT kernel {config.kernel_size}, stride {config.window_step}, rank "
                        f"{config.rank}, scale {config.scale:g} in {len(adapter.modules)} layers "
                        f"({' '.join(config.targets)})"),
            ("trained", f"{adapter.adapter_parameters:,} adapter parameters "
                        f"+ {adapter.head_parameters:,} outside the encoder"),
            ("steps", f"{plan.total_steps:,} of batch {plan.batch_size} "
                      f"({plan.steps_per_epoch:,} an epoch), {int(warmup):,} to warm up, "
                      f"learning rate {training.learning_rate:g}"),
            ("device", f"{plan.device}, {plan.precision}"),
            ("output", str(plan.folder.path)),
        ),
        "",
    )  # fmt: skip


def show_training(result: "TrainingResult") -> None:
    """Best and last scores, what was trained, and what to type next."""
    metrics = result.metrics
    best, last = metrics["metrics"], metrics["last_metrics"]
    if best:
        table = Table(box=None, pad_edge=False, header_style="bold")
        table.add_column("")
        table.add_column(f"best (step {metrics['best_step']})", justify="right", style="green")
        table.add_column(f"last (step {metrics['last_step']})", justify="right")
        for name in best:
            table.add_row(name, f"{best[name]:.4f}", f"{last[name]:.4f}" if last else "")
        out.print(table)
    speed = metrics["tokens_per_second"]
    out.print(
        f"{metrics['adapter_parameters']:,} adapter + {metrics['head_parameters']:,} head "
        f"parameters in {_bytes(result.folder.adapter.stat().st_size)}; "
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
        _facts(
            ("adapter", str(result.adapter)),
            ("base", result.base),
            ("data", rows),
            *((name, f"{value:.4f}") for name, value in result.metrics.items()),
        )
    )


def show_merge(result: "MergeResult") -> None:
    """Where the model is, how it is loaded, and the proof."""
    out.print(
        _facts(
            ("merged", f"{result.folder} ({_bytes(result.bytes)}, {result.layers} layers folded)"),
            ("proof", f"largest logit difference to base + adapter: {result.difference:.2e}"),
            ("load", f'{result.model_class}.from_pretrained("{result.folder}")'),
        )
    )


def show_inspection(found: "Inspection") -> None:
    """Counts, then modules; layers that are alike share a row."""
    config, about = found.config, found.about
    ours, lora, full = found.adapter_parameters, found.lora_parameters, found.full_parameters
    base = found.base["name"] or "not named"
    if mark := found.base["fingerprint"]:
        base += f" ({mark[:19]})"
    facts = [("recipe" if found.planned else "file", str(found.source)), ("base", base)]
    if about.get("task"):
        labels = ", ".join(about["labels"])
        facts.append(("task", about["task"] + (f" ({labels})" if labels else "")))
    facts += [
        ("method", f"DCFT kernel {config.kernel_size}, stride {config.window_step}, "
                   f"rank {config.rank}, scale {config.scale:g}"),
        ("adapter", f"{ours:,} parameters in {len(found.modules)} layers"),
        ("head", f"{found.head_parameters:,} parameters"
                 + (" outside the encoder" if found.planned else "")),
        ("beside it", f"LoRA r = 1: {lora:,} ({lora / ours:.1f} times as many); "
                      f"full fine-tuning: {full:,}"),
    ]  # fmt: skip
    if found.file_bytes is not None:
        facts.append(("size", f"{_bytes(found.file_bytes)}, format {found.format_version}"))
    if about.get("versions"):
        facts.append(("made by", ", ".join(f"{n} {v}" for n, v in about["versions"].items())))
    out.print(_facts(*facts))
    out.print()
    out.print(_modules(found))


def _modules(found: "Inspection") -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("role", "modules"):
        table.add_column(name, overflow="fold")
    for name in ("layers", "out x in", "kernel", "stride", "rank", "each", "parameters"):
        table.add_column(name, justify="right", no_wrap=True)
    if not found.planned:
        table.add_column("|dW| min..max", justify="right", no_wrap=True)
    config = found.config

    def kind(module: Any) -> tuple[str, str, int, int]:
        pattern = ".".join("*" if p.isdigit() else p for p in module.name.split("."))
        return (module.role, pattern, module.out_features, module.in_features)

    order = {kind(module): number for number, module in reversed([*enumerate(found.modules)])}
    for key, same in groupby(sorted(found.modules, key=lambda m: order[kind(m)]), key=kind):
        group = list(same)
        role, pattern, rows, columns = key
        each = group[0].parameters(config)
        norms = [found.norms[m.name] for m in group if m.name in found.norms]
        table.add_row(
            role,
            pattern,
            *map(str, (len(group), f"{rows} x {columns}", config.kernel_size)),
            *map(str, (config.window_step, config.rank)),
            f"{each:,}",
            f"{each * len(group):,}",
            *([f"{min(norms):.3g}..{max(norms):.3g}"] if norms else []),
        )
    return table


def _facts(*facts: tuple[str, str]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, value in facts:
        table.add_row(name, Text(value))
    return table


def _classes(plan: "TrainingPlan") -> list[tuple[str, str]]:
    """The classes and their training rows: a misspelt label shows as a class of its own."""
    loaded = plan.preparation.loaded
    labels, rows = loaded.task.labels, loaded.train
    if not labels or rows is None:
        return []
    counts = Counter(rows.dataset["label"][:])
    listed = [f"{name} {counts[n]:,}" for n, name in enumerate(labels[:_SHOWN_CLASSES])]
    if len(labels) > _SHOWN_CLASSES:
        listed.append(f"and {len(labels) - _SHOWN_CLASSES} more")
    return [("classes", ", ".join(listed))]


def _origin(rows: Any) -> str:
    return str(rows.origin)


def _task(name: str | None, kind: str) -> str:
    return f"{name} ({kind})" if name else kind


def _short(number: int) -> str:
    """22,713,985 as 22.7M."""
    for unit, size in (("B", 1e9), ("M", 1e6), ("K", 1e3)):
        if number >= size:
            return f"{number / size:.1f}{unit}"
    return str(number)


def _bytes(number: int) -> str:
    """57272 as 57.3 kB."""
    step = min(int(math.log10(max(number, 1)) // 3), 3)
    return f"{number / 1000**step:.{1 if step else 0}f} {('bytes', 'kB', 'MB', 'GB')[step]}"
