"""Says when a run does not learn, and which setting to change."""

import math
from collections.abc import Mapping
from statistics import mean, median
from typing import Any

import torch
from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from dcft_cli.adapter.inject import adapter_layers
from dcft_cli.recipe.schema import TrainingSection
from dcft_cli.training.reporting import Reporter

# What a run must beat.
CONSTANT = "constant"
FITTED_HEAD = "fitted head"

_NO_CHANGE = 1e-3
_LARGE_CHANGE = 1.0
_RECENT = 5  # losses, each the mean of training.logging_steps


class LearningCheck(TrainerCallback):
    """Compares a run with what is reached without training.

    Args:
        reporter: told at the first evaluation.
        metric: name of the score that picks the best checkpoint.
        greater_is_better: whether a higher one is better.
        constant_loss: mean training loss of the constant prediction, if it is known.

    Attributes:
        baselines: main score of what a run must beat, by its name.
        failure: what the last predictions show where nothing was learned; see `EvaluationSet`.
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
        self._told = False

    @property
    def baseline(self) -> tuple[str, float] | None:
        """Name and main score of the best thing that a run must beat."""
        return max(self.baselines.items(), key=lambda item: self.sign * item[1], default=None)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Takes up what a resumed run has logged."""
        self.take_history(state)

    def take_history(self, state: TrainerState) -> None:
        """Take up losses, gradients and evaluations from the Trainer's log."""
        for record in state.log_history:
            self._take(record)
            self._told = self._told or f"eval_{self.metric}" in record

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """Keeps loss and gradient."""
        self._take(logs or {})

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        """At the first evaluation, says what is wrong; at the last one, `conclude` does."""
        if self._told or state.global_step >= state.max_steps:
            return
        self._told = True
        score = (metrics or {})[f"eval_{self.metric}"]
        found = [f"after {state.global_step} steps {self.failure}"] if self.failure else []
        constant = self.baselines.get(CONSTANT)
        if constant is not None and self.sign * score < self.sign * constant:
            found.append(f"{self.metric} {score:.4g} is worse than the constant's {constant:.4g}")
        if self.largest_gradient == 0:
            found.append("every gradient has been zero")
        if found:
            self.reporter.noted(f"Nothing is learned yet: {'; '.join(found)}.")

    def conclude(
        self, best: float | None, weight_change: float | None, learning_rate: float
    ) -> list[str]:
        """What a finished run did not learn, and the setting to change; empty where it learned.

        Args:
            best: the best main score, if anything was scored.
            weight_change: see `relative_change`.
            learning_rate: the highest of the run.
        """
        rate = f"training.learning_rate from {learning_rate:g}"
        usual = TrainingSection.model_fields["learning_rate"].default
        higher = (
            f"Raise {rate}, to {max(10 * learning_rate, usual):.2g} for example, or train for more "
            "epochs."
        )
        if self.largest_gradient == 0:
            return [
                "This run did not learn: every gradient was zero. The loss does not depend on what "
                "is trained: see adapter.targets, and whether the model has a head of its own."
            ]
        if weight_change is not None and weight_change < _NO_CHANGE:
            return [
                f"The adapter did not learn: it is {weight_change:.1e} of the weights, next to "
                f"nothing. {higher}"
            ]
        beaten = best is not None and all(self._beats(best, name) for name in self.baselines)
        lower = f"Lower {rate}, to {learning_rate / 10:.2g} for example."
        if beaten and self.baselines:
            return [f"The last checkpoint fails: {self.failure}. {lower}"] if self.failure else []
        found = [self.failure] if self.failure else []
        if best is not None and (baseline := self.baseline):
            name, score = baseline
            found.append(f"{self.metric} {best:.4g} is not better than the {name}'s {score:.4g}")
        recent = self.losses[-_RECENT:]
        if recent and self.constant_loss is not None and mean(recent) >= self.constant_loss:
            found.append(
                f"the loss, {mean(recent):.4g}, is not below the constant's "
                f"{self.constant_loss:.4g}"
            )
        if not found:
            return []
        if weight_change is not None and weight_change > _LARGE_CHANGE:
            hint = f"The adapter outweighs the base model. {lower}"
        elif learning_rate < usual / 5:
            hint = higher
        else:
            hint = (
                f"Try training.learning_rate={3 * learning_rate:.2g} and {learning_rate / 3:.2g}, "
                "more epochs, or more rows; adapter.kernel_size=2 has more trained values."
            )
        return [f"This run did not learn: {'; '.join(found)}. {hint}"]

    def _beats(self, score: float, name: str) -> bool:
        """Whether a score is better than a baseline, or both are as good as can be."""
        other = self.baselines[name]
        perfect = (0.0,) if self.sign < 0 else (1.0, 100.0)
        return self.sign * score > self.sign * other or score == other in perfect

    def _take(self, logs: Mapping[str, float]) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])
        gradient = logs.get("grad_norm")
        if gradient is not None and math.isfinite(gradient):
            self.largest_gradient = max(self.largest_gradient or 0.0, gradient)


@torch.no_grad()
def relative_change(model: nn.Module) -> float | None:
    """Compute how much adapters change weights: the median over layers of |dW| / |W| (Frobenius).

    None where no adapted weight is in full precision, as in a quantized model.
    """
    shares = []
    for layer in adapter_layers(model).values():
        if layer.target is None or layer.target.matrix.is_quantized:
            continue
        down, up = layer()
        # |U V|^2 is the sum of (U^T U) * (V V^T), elementwise: no dW is formed.
        squared = ((up.mT @ up) * (down @ down.mT)).sum().clamp_min(0)
        if size := float(layer.target.matrix.parameter.float().norm()):
            shares.append(float(squared.sqrt()) / size)
    return median(shares) if shares else None
