"""What a plot shows of a run: losses and scores by step, and dW by layer and role."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dcft_cli.adapter_file.contents import AdapterContents
from dcft_cli.adapter_file.read import read_contents
from dcft_cli.errors import RunError
from dcft_cli.runs.folder import RunFolder

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curves:
    """The course of a run and the size of its adapter.

    Attributes:
        name: of the run folder.
        metric: the main one; empty if nothing was scored.
        loss: mean training loss by optimizer step.
        score: the main metric by optimizer step.
        baselines: the main metric of each baseline, by name.
        delta_norms: Frobenius norm of dW by layer, for each role; empty before the run's end, and
            for other methods than DCFT.
    """

    name: str
    metric: str
    loss: Points
    score: Points
    baselines: Mapping[str, float]
    delta_norms: Mapping[str, Points]


def read_curves(folder: str) -> Curves:
    """Read what a run has written so far.

    Raises:
        RunError: the folder has no run with a logged step.
    """
    run = RunFolder(Path(folder).expanduser())
    lines = run.log_lines()
    if not any("loss" in line for line in lines):
        raise RunError(
            f"{folder} has no {run.log.name} with a training loss.",
            "Name the folder of a run: dcft plot runs/NAME. A run writes its loss every "
            "training.logging_steps steps.",
        )
    scored = [line for line in lines if "scores" in line]
    metric = next(iter(scored[0]["scores"]), "") if scored else ""
    if run.metrics.is_file():
        metric = json.loads(run.metrics.read_text(encoding="utf-8"))["main_metric"]
    scored = [line for line in scored if metric in line["scores"]]
    return Curves(
        name=run.path.name,
        metric=metric,
        loss=[(line["step"], line["loss"]) for line in lines if "loss" in line],
        score=[(s["step"], s["scores"][metric]) for s in scored if "baseline" not in s],
        baselines={s["baseline"]: s["scores"][metric] for s in scored if "baseline" in s},
        delta_norms=_delta_norms(run.adapter) if run.adapter.is_file() else {},
    )


def _delta_norms(adapter: Path) -> dict[str, list[tuple[float, float]]]:
    contents = read_contents(adapter)
    if not isinstance(contents, AdapterContents):
        return {}
    norms: dict[str, list[tuple[float, float]]] = {}
    for module in contents.modules:
        layer = re.search(r"\d+", module.name)
        if (norm := contents.delta_norm(module)) is not None:
            points = norms.setdefault(module.role or module.name, [])
            points.append((int(layer[0]) if layer else 0, norm))
    return norms
