"""Adapters and a model's layers as tables."""

import math
import re
from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderResult
from rich.filesize import decimal
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from dcft_cli.console.output import out
from dcft_cli.console.reports import decision_facts
from dcft_cli.console.tables import MAX_CLASSES, facts, method_facts
from dcft_cli.errors import listed

if TYPE_CHECKING:
    from dcft_cli.adapter_file.spec import Module
    from dcft_cli.runs.inspect_adapter import Inspection
    from dcft_cli.runs.inspect_targets import Resolution


def show_inspection(found: "Inspection") -> None:
    """Print counts, then a table of layers, in which similar layers share a row."""
    groups: dict[tuple[str, str, int, int], list[Module]] = {}
    for module in found.modules:
        name = ".".join("*" if part.isdigit() else part for part in module.name.split("."))
        key = (module.role, name, module.out_features, module.in_features)
        groups.setdefault(key, []).append(module)
    prefix = _common_prefix([name for _, name, _, _ in groups])
    config = found.config
    table = _table("role", "layer", "count", "out x in", *(["parameters"] if config else []))
    if found.norms:
        table.add_column("|dW| min..max", justify="right", no_wrap=True)
    decimals = _decimals(found.norms.values())
    for (role, name, out_features, in_features), group in groups.items():
        norms = [found.norms[m.name] for m in group if m.name in found.norms]
        table.add_row(
            role,
            _DottedName(name.removeprefix(f"{prefix}.")),
            str(len(group)),
            f"{out_features} x {in_features}",
            *([f"{sum(module.parameters(config) for module in group):,}"] if config else []),
            *([f"{min(norms):.{decimals}f}..{max(norms):.{decimals}f}"] if norms else []),
        )
    lines = [*_facts_of(found), *([("layers", f"in {prefix}")] if prefix else [])]
    out.print(facts(*lines), *(["", table] if groups else []))


def _decimals(numbers: Collection[float]) -> int:
    """Return how many decimals show the largest number with four digits; so few for all."""
    largest = max(filter(math.isfinite, numbers), default=0.0)
    return max(0, 3 - math.floor(math.log10(largest))) if largest > 0 else 0


def _facts_of(found: "Inspection") -> list[tuple[str, str]]:
    """Return what is known of an adapter, apart from its layers."""
    about, count = found.about, len(found.modules)
    ours, lora, full = found.adapter_parameters, found.lora_parameters, found.full_parameters
    base = found.base["name"] or "not named"
    if fingerprint := found.base["fingerprint"]:
        base += f" ({fingerprint[:19]})"
    lines = [("recipe" if found.planned else "file", str(found.source)), ("base", base)]
    if about.get("task"):
        labels = listed(about["labels"], MAX_CLASSES)
        lines.append(("task", about["task"] + (f" ({labels})" if labels else "")))
    lines += decision_facts(about.get("decision", {}), about.get("decision", ()))
    lines += [
        ("method", method_facts(found.method, found.settings)),
        ("adapter", f"{ours:,} parameters" + (f" in {count} layers" if count else "")),
        ("head", f"{found.head_parameters:,} parameters" + _fixed(found)),
    ]
    if count and ours:
        lines.append(
            ("compare", f"LoRA r=1: {lora:,} ({lora / ours:.1f}x); "
                        f"full fine-tuning of these layers: {full:,}")
        )  # fmt: skip
    if found.file_bytes is not None:
        lines.append(
            ("size", f"{decimal(found.file_bytes)}, {found.dtype}, format {found.format_version}")
        )
    if about.get("versions"):
        lines.append(("made by", ", ".join(f"{n} {v}" for n, v in about["versions"].items())))
    return lines


def _fixed(found: "Inspection") -> str:
    """Return the layers of the head that are not trained, if there are any."""
    layers = sorted({name.rpartition(".")[0] for name in found.fixed})
    return f"; fixed: {', '.join(layers)}" if layers else ""


def show_resolution(found: "Resolution") -> None:
    """Print every kind of layer that a target can select, and whether it is selected."""
    columns = ["target", "role", "layer", "count", "out x in"]
    table = _table(*columns, *(["parameters"] if found.config else []))
    has_layouts = any(kind.layout for kind in found.layers)
    if has_layouts:
        table.add_column("weight")
    for kind in found.layers:
        table.add_row(
            "yes" if kind.chosen else "",
            kind.role or "",
            _DottedName(kind.name),
            str(kind.count),
            f"{kind.out_features} x {kind.in_features}",
            *([] if kind.parameters is None else [f"{kind.parameters:,}"]),
            *([", ".join(kind.layout)] if has_layouts else []),
            style="" if kind.chosen else "dim",
        )
    settings = f"({found.method})"
    if config := found.config:
        settings = (
            f"at kernel {config.kernel_size}, stride {config.effective_stride}, rank {config.rank}"
        )
    out.print(
        facts(
            ("model", f"{found.model} ({found.model_class}, type {found.model_type})"),
            ("targets", " ".join(found.targets) or "none"),
            ("adapter", f"{found.adapter_parameters:,} parameters {settings}"),
            ("head", ", ".join(found.head) or "none"),
        ),
        "",
        table,
    )  # fmt: skip


class _DottedName:
    """A name that is broken after dots where it does not fit."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        return Measurement(min(20, len(self._name)), len(self._name))

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = [""]
        for part in re.findall(r"[^.]*\.?", self._name):
            if lines[-1] and len(lines[-1] + part) > options.max_width:
                lines.append("")
            lines[-1] += part
        yield Text("\n".join(lines), overflow="fold")


def _table(*columns: str) -> Table:
    """Return a table whose layer names, but no numbers, are folded on a narrow terminal."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        if name == "layer":
            table.add_column(name)
        else:
            is_number = name in ("count", "out x in", "parameters")
            table.add_column(name, justify="right" if is_number else "left", no_wrap=True)
    return table


def _common_prefix(names: Sequence[str]) -> str:
    """Return the parts of dotted names that are common to all of them."""
    parents = zip(*(name.split(".")[:-1] for name in names), strict=False)
    return ".".join(parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, parents))
