"""Token classification: a label for every word of a sentence."""

from dcft_cli.tasks.token_classification.task import TokenClassification

__all__ = ["TokenClassification"]
