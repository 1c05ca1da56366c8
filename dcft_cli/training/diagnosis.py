"""Detection of runs that do not learn, with the setting to change."""

import math
from collections.abc import Mapping, Sequence
from statistics import mean

from dcft_cli.recipe.methods import METHODS

# Baselines that a run must beat.
CONSTANT = "constant"
FITTED_HEAD = "fitted head"

_NO_CHANGE = 1e-3
_LARGE_CHANGE = 1.0
_RECENT = 5  # losses, each the mean since the one before
_CLEAR_FALL = 0.9


def diagnose(
    history: Sequence[Mapping[str, float]],
    best: float | None,
    baselines: Mapping[str, float],
    *,
    metric: str,
    greater_is_better: bool,
    failure: str,
    constant_loss: float | None,
    weight_change: float | None,
    learning_rate: float,
    method: str = "dcft",
) -> list[str]:
    """Return what is missing in a finished run and the setting to change; empty if it learned.

    Args:
        history: the Trainer's log.
        best: the best main score, if anything was scored.
        baselines: main score of each baseline that the run must beat, by name; none with class
            weights, which buy better rare classes with more errors altogether.
        failure: what is wrong with the last predictions, if anything; see `EvaluationSet`.
        constant_loss: mean training loss of the constant prediction, if it is known.
        weight_change: see `Method.weight_change`.
        learning_rate: the highest of the run.
        method: as in a recipe's `adapter.method`; its default learning rate is the measure.
    """
    gradients = [record["grad_norm"] for record in history if "grad_norm" in record]
    if gradients and not any(gradients):
        return [
            "This run did not learn: every gradient was zero. The loss does not depend on the "
            "trained parameters: check adapter.targets, and whether the model has its own head."
        ]
    if weight_change is not None and weight_change < _NO_CHANGE:
        return [
            f"The adapter did not learn: it changes the weights by {weight_change:.1e} of "
            f"their size, next to nothing. {_raise(learning_rate, method)}"
        ]
    problems = [failure] if failure else []
    if best is not None and baselines:
        sign = 1 if greater_is_better else -1
        perfect = (1.0, 100.0) if greater_is_better else (0.0,)  # can only be equaled
        if all(sign * best > sign * b or best == b in perfect for b in baselines.values()):
            lower = _lower(learning_rate)
            return [f"The last checkpoint fails: {failure}. {lower}"] if failure else []
        name, score = max(baselines.items(), key=lambda item: sign * item[1])
        if not failure and _still_learns(history, baselines, metric, sign, constant_loss):
            return [
                f"This run still learns, but is not yet better than the {name}: {metric} "
                f"{best:.4g}, {name} {score:.4g}. {_longer(learning_rate, method)}"
            ]
        problems.append(f"{metric} {best:.4g} is not better than the {name}'s {score:.4g}")
    losses = [record["loss"] for record in history if "loss" in record][-_RECENT:]
    is_high = bool(losses) and constant_loss is not None and mean(losses) >= constant_loss
    if is_high:
        problems.append(
            f"the loss, {mean(losses):.4g}, is not below the constant's {constant_loss:.4g}"
        )
    if not problems:
        return []
    hint = _hint(weight_change, learning_rate, method, loss_is_high=is_high)
    return [f"This run did not learn: {'; '.join(problems)}. {hint}"]


def _still_learns(
    history: Sequence[Mapping[str, float]],
    baselines: Mapping[str, float],
    metric: str,
    sign: int,
    constant_loss: float | None,
) -> bool:
    """Return whether the scores approach the baselines, or the loss falls, until a run ends.

    The last score must be the best one, and better than the constant's. It approaches the
    baselines if twice as many steps again would reach them, at the pace of the second half. The
    loss must fall within that half.
    """
    scores = [sign * record[f"eval_{metric}"] for record in history if f"eval_{metric}" in record]
    constant = sign * baselines.get(CONSTANT, math.inf * sign)
    if not scores or scores[-1] < max(scores) or scores[-1] <= constant:
        return False
    rise = scores[-1] - _second_half(scores)[0]
    target = max(sign * baseline for baseline in baselines.values())
    if rise > 0 and 4 * rise >= target - scores[-1]:
        return True
    losses = [record["loss"] for record in history if "loss" in record]
    if constant_loss is not None:
        losses.insert(0, constant_loss)  # about that before the first step, in a run with one loss
    losses = _second_half(losses)
    half = len(losses) // 2
    return half > 0 and mean(losses[-half:]) < _CLEAR_FALL * mean(losses[:half])


def _second_half(values: list[float]) -> list[float]:
    """Return the values from the middle on: both of two."""
    return values[max(0, len(values) - 1) // 2 :]


def _longer(learning_rate: float, method: str) -> str:
    """Return what to change for a run that still learns."""
    if _is_low(learning_rate, method):
        return _raise(learning_rate, method)
    return "First train longer: raise training.epochs or training.max_steps."


def _hint(
    weight_change: float | None, learning_rate: float, method: str, *, loss_is_high: bool
) -> str:
    """Return what to change for a run that did not learn, though its adapter changed.

    Args:
        loss_is_high: whether the run ends with no lower loss than the constant prediction.
    """
    if weight_change is not None and weight_change > _LARGE_CHANGE:
        return f"The adapter outweighs the base model. {_lower(learning_rate)}"
    # In benchmarks/learning.csv, no such run scores more than the best one at a lower rate.
    if loss_is_high and learning_rate > METHODS[method].learning_rate:
        return _lower(learning_rate)
    if _is_low(learning_rate, method):
        return _raise(learning_rate, method)
    kernel = "; a smaller adapter.kernel_size trains more parameters" if method == "dcft" else ""
    return (
        f"Try training.learning_rate={3 * learning_rate:.2g} and {learning_rate / 3:.2g}, "
        f"more epochs, or more rows{kernel}."
    )


def _is_low(rate: float, method: str) -> bool:
    return rate < METHODS[method].learning_rate / 5


def _raise(rate: float, method: str) -> str:
    higher = max(10 * rate, METHODS[method].learning_rate)
    return (
        f"Raise training.learning_rate from {rate:g}, to {higher:.2g} for example, or train for "
        "more epochs."
    )


def _lower(rate: float) -> str:
    return f"Lower training.learning_rate from {rate:g}, to {rate / 10:.2g} for example."


def first_impression(
    score: float, constant: float | None, *, metric: str, greater_is_better: bool, failure: str
) -> str:
    """Return what the first evaluation says against a run; empty if nothing.

    Args:
        score, constant: main score, and that of the constant prediction if there is one.
        failure: what is wrong with the predictions, if anything; see `EvaluationSet`.
    """
    problems = [failure] if failure else []
    sign = 1 if greater_is_better else -1
    if constant is not None and sign * score < sign * constant:
        problems.append(f"{metric} {score:.4g} is worse than the constant's {constant:.4g}")
    if not problems:
        return ""
    return (
        f"Nothing is learned yet: {'; '.join(problems)}. If that stays so, stop the run and change "
        "training.learning_rate."
    )
