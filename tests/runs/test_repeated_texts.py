"""Scores of data with repeated texts, whose logits differ in the last bits by batch."""

from pathlib import Path

import numpy as np
import pytest

from dcft_cli.training.trainer import AdapterTrainer
from tests.jobs import recipe, train
from tests.samples import Row, rows_of, write_rows


def repeated(task: str) -> list[Row]:
    """Rows with four texts, of several lengths, and all labels with each."""
    rows = rows_of(task, 40)
    texts = [name for name in rows[0] if name.startswith(("text", "sentence"))]
    return [
        row | {name: rows[number % 4][name] for name in texts} for number, row in enumerate(rows)
    ]


@pytest.mark.parametrize("task", ["stsb", "multi_label"])
def test_scores_do_not_depend_on_the_batch_size(
    task: str, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluation_loop = AdapterTrainer.evaluation_loop
    draw = np.random.default_rng(0)

    def with_noise(self: AdapterTrainer, *args: object, **settings: object) -> object:
        """Move every logit as much as padding does, another way in every evaluation."""
        output = evaluation_loop(self, *args, **settings)
        noise = 1 + 3e-7 * draw.standard_normal(output.predictions.shape)
        return output._replace(predictions=output.predictions * noise)

    monkeypatch.setattr(AdapterTrainer, "evaluation_loop", with_noise)
    data = write_rows(tmp_path / "repeated.jsonl", repeated(task))
    scores = []
    for size in (1, 5, 64):
        settings = (f"data.validation={data}", f"training.eval_batch_size={size}")
        job = train(recipe(task, tmp_path, base, *settings), tmp_path / str(size))
        scores.append(job.metrics["metrics"])
    ranks = "spearman" if task == "stsb" else "mean_average_precision"
    assert scores[0][ranks] == scores[1][ranks] == scores[2][ranks]
    for other in scores[1:]:
        assert other == pytest.approx(scores[0], abs=1e-4)
