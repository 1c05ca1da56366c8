"""Tasks: rows in, checked and encoded; predictions in, scored."""

from dcft_cli.tasks.answers import Answer
from dcft_cli.tasks.base import EvaluationSet, RowSet, Task
from dcft_cli.tasks.build import build_task
from dcft_cli.tasks.load import LoadedTask, load_task

__all__ = ["Answer", "EvaluationSet", "LoadedTask", "RowSet", "Task", "build_task", "load_task"]
