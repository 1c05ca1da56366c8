"""The known tasks: eight of GLUE, and SQuAD.

Columns, splits and the order of the labels are those of the Hub data sets `nyu-mll/glue`,
`rajpurkar/squad` and `rajpurkar/squad_v2`; the metrics are those that the DCFT paper reports
(arXiv 2503.01419, table 7).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class KnownTask:
    """The settings that a known task's name implies.

    Attributes:
        text: text column, or the two columns of a pair.
        metrics: names of the scores; the first one picks the best checkpoint.
        labels: class names in the order of their numbers; empty without classes.
        validation: Hub splits by the name of the validation set; a single set has no name.
        unanswerable: question answering: questions may have no answer.
    """

    text: tuple[str, ...]
    metrics: tuple[str, ...]
    labels: tuple[str, ...] = ()
    validation: Mapping[str, str] = field(default_factory=lambda: {"": "validation"})
    unanswerable: bool = False


def _task(text: str, metrics: str, labels: str = "", **others: Any) -> KnownTask:
    return KnownTask(tuple(text.split()), tuple(metrics.split()), tuple(labels.split()), **others)


KNOWN: dict[str, KnownTask] = {
    "cola": _task("sentence", "matthews_correlation", "unacceptable acceptable"),
    "sst2": _task("sentence", "accuracy", "negative positive"),
    "mrpc": _task("sentence1 sentence2", "accuracy f1", "not_equivalent equivalent"),
    "qqp": _task("question1 question2", "accuracy f1", "not_duplicate duplicate"),
    "stsb": _task("sentence1 sentence2", "pearson spearman"),
    "mnli": _task(
        "premise hypothesis",
        "accuracy",
        "entailment neutral contradiction",
        validation={"matched": "validation_matched", "mismatched": "validation_mismatched"},
    ),
    "qnli": _task("question sentence", "accuracy", "entailment not_entailment"),
    "rte": _task("sentence1 sentence2", "accuracy", "entailment not_entailment"),
    "squad_v1": _task("question context", "f1 exact_match"),
    "squad_v2": _task(
        "question context", "f1 exact_match best_f1 best_exact_match", unanswerable=True
    ),
}


def known_task(name: str | None) -> KnownTask | None:
    """Return the known task of that name; None for a user's own task."""
    return None if name is None else KNOWN[name]
