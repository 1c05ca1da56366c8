"""Task families: check and encode rows, and score predictions."""

from dcft_cli.data.evaluation_set import EvaluationSet
from dcft_cli.tasks.families import FAMILIES, build_task, labels_only_in_data
from dcft_cli.tasks.load import LoadedTask, load_task

__all__ = [
    "FAMILIES",
    "EvaluationSet",
    "LoadedTask",
    "build_task",
    "labels_only_in_data",
    "load_task",
]
