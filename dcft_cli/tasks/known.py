"""The known tasks: eight of GLUE, and SQuAD.

Columns, splits and the order of the labels are those of the Hub data sets `nyu-mll/glue`,
`rajpurkar/squad` and `rajpurkar/squad_v2`; the metrics are those that the DCFT paper reports
(arXiv 2503.01419, table 7).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field


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


KNOWN: dict[str, KnownTask] = {
    "cola": KnownTask(
        text=("sentence",),
        labels=("unacceptable", "acceptable"),
        metrics=("matthews_correlation",),
    ),
    "sst2": KnownTask(
        text=("sentence",),
        labels=("negative", "positive"),
        metrics=("accuracy",),
    ),
    "mrpc": KnownTask(
        text=("sentence1", "sentence2"),
        labels=("not_equivalent", "equivalent"),
        metrics=("accuracy", "f1"),
    ),
    "qqp": KnownTask(
        text=("question1", "question2"),
        labels=("not_duplicate", "duplicate"),
        metrics=("accuracy", "f1"),
    ),
    "stsb": KnownTask(
        text=("sentence1", "sentence2"),
        metrics=("pearson", "spearman"),
    ),
    "mnli": KnownTask(
        text=("premise", "hypothesis"),
        labels=("entailment", "neutral", "contradiction"),
        metrics=("accuracy",),
        validation={"matched": "validation_matched", "mismatched": "validation_mismatched"},
    ),
    "qnli": KnownTask(
        text=("question", "sentence"),
        labels=("entailment", "not_entailment"),
        metrics=("accuracy",),
    ),
    "rte": KnownTask(
        text=("sentence1", "sentence2"),
        labels=("entailment", "not_entailment"),
        metrics=("accuracy",),
    ),
    "squad_v1": KnownTask(
        text=("question", "context"),
        metrics=("f1", "exact_match"),
    ),
    "squad_v2": KnownTask(
        text=("question", "context"),
        metrics=("f1", "exact_match", "best_f1", "best_exact_match"),
        unanswerable=True,
    ),
}


def known_task(name: str | None) -> KnownTask | None:
    """Return the known task of that name; None for a user's own task."""
    return None if name is None else KNOWN[name]
