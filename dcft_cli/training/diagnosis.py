"""Detection of runs that do not learn, with the setting to change."""

import math
from statistics import mean, median
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerState

from dcft_cli.adapter.inject import adapter_layers
from dcft_cli.recipe.schema import TrainingSection
from dcft_cli.training.reporting import Reporter

# Baselines that a run must beat.
CONSTANT = "constant"
FITTED_HEAD = "fitted head"

_NO_CHANGE = 1e-3
_LARGE_CHANGE = 1.0
_RECENT = 5  # losses, each the mean of training.logging_steps


class LearningCheck(TrainerCallback):
    """Compare a run with what is reached without training.

    Args:
        reporter: gets a note at the first evaluation if something is wrong.
        metric, greater_is_better: the score that picks the best checkpoint.
        constant_loss: mean training loss of the constant prediction, if it is known.

    Attributes:
        baselines: main score of each baseline that the run must beat, by name.
        failure: what is wrong with the last predictions, if anything; see `EvaluationSet`.
    """

    def __init__(
        self,
        reporter: Reporter,
        *,
        metric: str,
        greater_is_better: bool,
        constant_loss: float | None,
    ) -> None:
        self.reporter = reporter
        self.metric = metric
        self.sign = 1 if greater_is_better else -1
        self.constant_loss = constant_loss
        self.baselines: dict[str, float] = {}
        self.failure = ""
        self.losses: list[float] = []
        self.largest_gradient: float | None = None
        self._noted = False

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Read losses, gradients and evaluations of a resumed run from the Trainer's log."""
        for record in state.log_history:
            self.on_log(args, state, control, logs=record)
            self._noted = self._noted or f"eval_{self.metric}" in record

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Record loss and gradient norm."""
        logs = kwargs["logs"]
        if "loss" in logs:
            self.losses.append(logs["loss"])
        gradient = logs.get("grad_norm")
        if gradient is not None and math.isfinite(gradient):
            self.largest_gradient = max(self.largest_gradient or 0.0, gradient)

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:
        """Note what is wrong at the first evaluation; after the last one `conclude` does."""
        if self._noted or state.global_step >= state.max_steps:
            return
        self._noted = True
        score = kwargs["metrics"][f"eval_{self.metric}"]
        problems = [f"after {state.global_step} steps {self.failure}"] if self.failure else []
        constant = self.baselines.get(CONSTANT)
        if constant is not None and self.sign * score < self.sign * constant:
            problems.append(
                f"{self.metric} {score:.4g} is worse than the constant's {constant:.4g}"
            )
        if self.largest_gradient == 0:
            problems.append("every gradient has been zero")
        if problems:
            self.reporter.noted(f"Nothing is learned yet: {'; '.join(problems)}.")

    def conclude(
        self, best: float | None, weight_change: float | None, learning_rate: float
    ) -> list[str]:
        """Return what a finished run did not learn and the setting to change; empty if it learned.

        Args:
            best: the best main score, if anything was scored.
            weight_change: see `relative_change`.
            learning_rate: the highest of the run.
        """
        default_rate = TrainingSection.model_fields["learning_rate"].default
        rate = f"training.learning_rate from {learning_rate:g}"
        higher = f"{max(10 * learning_rate, default_rate):.2g}"
        raise_it = f"Raise {rate}, to {higher} for example, or train for more epochs."
        lower_it = f"Lower {rate}, to {learning_rate / 10:.2g} for example."
        if self.largest_gradient == 0:
            return [
                "This run did not learn: every gradient was zero. The loss does not depend on the "
                "trained parameters: check adapter.targets, and whether the model has its own head."
            ]
        if weight_change is not None and weight_change < _NO_CHANGE:
            return [
                f"The adapter did not learn: it changes the weights by {weight_change:.1e} of "
                f"their size, next to nothing. {raise_it}"
            ]
        problems = [self.failure] if self.failure else []
        if best is not None and self.baselines:
            if all(self._beats(best, score) for score in self.baselines.values()):
                return [f"The last checkpoint fails: {p}. {lower_it}" for p in problems]
            name, score = max(self.baselines.items(), key=lambda item: self.sign * item[1])
            problems.append(f"{self.metric} {best:.4g} is not better than the {name}'s {score:.4g}")
        loss = mean(self.losses[-_RECENT:]) if self.losses else -math.inf
        if self.constant_loss is not None and loss >= self.constant_loss:
            problems.append(
                f"the loss, {loss:.4g}, is not below the constant's {self.constant_loss:.4g}"
            )
        if not problems:
            return []
        if weight_change is not None and weight_change > _LARGE_CHANGE:
            hint = f"The adapter outweighs the base model. {lower_it}"
        elif learning_rate < default_rate / 5:
            hint = raise_it
        else:
            hint = (
                f"Try training.learning_rate={3 * learning_rate:.2g} and {learning_rate / 3:.2g}, "
                "more epochs, or more rows; adapter.kernel_size=2 trains more parameters."
            )
        return [f"This run did not learn: {'; '.join(problems)}. {hint}"]

    def _beats(self, score: float, baseline: float) -> bool:
        """Return whether a score is better than a baseline, or both are perfect."""
        perfect = (0.0,) if self.sign < 0 else (1.0, 100.0)
        return self.sign * score > self.sign * baseline or score == baseline in perfect


@torch.no_grad()
def relative_change(model: nn.Module) -> float | None:
    """Return how much the adapters change the weights: median of |dW| / |W| (Frobenius).

    None if no adapted weight is in full precision, as in a quantized model.
    """
    ratios = []
    for layer in adapter_layers(model).values():
        if layer.target is None or layer.target.matrix.is_quantized:
            continue
        down, up = layer()
        # |U V|^2 is the sum of (U^T U) * (V V^T), elementwise, which avoids computing dW.
        squared = ((up.mT @ up) * (down @ down.mT)).sum().clamp_min(0)
        if size := float(layer.target.matrix.parameter.float().norm()):
            ratios.append(float(squared.sqrt()) / size)
    return median(ratios) if ratios else None
