"""Extractive question answering: the span of a context that answers a question."""

from dcft_cli.tasks.question_answering.task import QuestionAnswering

__all__ = ["QuestionAnswering"]
