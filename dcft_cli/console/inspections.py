"""What is in an adapter, or could be in one, as tables."""

from itertools import groupby
from typing import TYPE_CHECKING, Any

from rich.table import Table

from dcft_cli.console.output import out
from dcft_cli.console.tables import facts, in_bytes

if TYPE_CHECKING:
    from dcft_cli.runs.inspect_adapter import Inspection
    from dcft_cli.runs.inspect_targets import Resolution


def show_inspection(found: "Inspection") -> None:
    """Counts, then modules; layers that are alike share a row."""
    config, about = found.config, found.about
    ours, lora, full = found.adapter_parameters, found.lora_parameters, found.full_parameters
    base = found.base["name"] or "not named"
    if mark := found.base["fingerprint"]:
        base += f" ({mark[:19]})"
    lines = [("recipe" if found.planned else "file", str(found.source)), ("base", base)]
    if about.get("task"):
        labels = ", ".join(about["labels"])
        lines.append(("task", about["task"] + (f" ({labels})" if labels else "")))
    lines += [
        ("method", f"DCFT kernel {config.kernel_size}, stride {config.effective_stride}, "
                   f"rank {config.rank}, scale {config.scale:g}"),
        ("adapter", f"{ours:,} parameters in {len(found.modules)} layers"),
        ("head", f"{found.head_parameters:,} parameters"
                 + (" outside the encoder" if found.planned else "")),
        ("beside it", f"LoRA r = 1: {lora:,} ({lora / ours:.1f} times as many); "
                      f"full fine-tuning: {full:,}"),
    ]  # fmt: skip
    if found.file_bytes is not None:
        lines.append(("size", f"{in_bytes(found.file_bytes)}, format {found.format_version}"))
    if about.get("versions"):
        lines.append(("made by", ", ".join(f"{n} {v}" for n, v in about["versions"].items())))
    out.print(facts(*lines))
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
            *map(str, (config.effective_stride, config.rank)),
            f"{each:,}",
            f"{each * len(group):,}",
            *([f"{min(norms):.3g}..{max(norms):.3g}"] if norms else []),
        )
    return table


def show_resolution(found: "Resolution") -> None:
    """Every kind of layer that a target can name, and which ones are named."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("target", "role", "layers"):
        table.add_column(name, overflow="fold")
    for name in ("number", "out x in", "parameters"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("weight")
    for kind in found.layers:
        table.add_row(
            "yes" if kind.chosen else "",
            kind.role or "",
            kind.name,
            str(kind.count),
            f"{kind.out_features} x {kind.in_features}",
            f"{kind.parameters:,}",
            ", ".join(kind.layout),
            style="" if kind.chosen else "dim",
        )
    config = found.config
    out.print(
        facts(
            ("model", f"{found.model} ({found.model_class}, type {found.model_type})"),
            ("targets", " ".join(config.targets)),
            ("adapter", f"{found.adapter_parameters:,} parameters at kernel {config.kernel_size}, "
                        f"stride {config.effective_stride}, rank {config.rank}"),
            ("head", ", ".join(found.head) or "none"),
        ),
        "",
        table,
    )  # fmt: skip
