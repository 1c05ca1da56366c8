"""Labels for words and sets of labels, on a user's files: from training to the merged model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from seqeval.metrics import f1_score
from sklearn.metrics import f1_score as f1_of_sets

from dcft_cli.adapter_file.read import read_adapter
from dcft_cli.merging.merge import merge
from dcft_cli.recipe import load_recipe
from dcft_cli.runs.evaluate import evaluate
from dcft_cli.runs.prepare import with_absolute_paths
from tests.families import save_base
from tests.jobs import Job, Watcher, recipe, train
from tests.samples import label_set_rows, tagged_rows

METRICS = {
    "token_classification": ["f1", "precision", "recall", "accuracy"],
    "multi_label": [
        *("micro_f1", "macro_f1", "mean_average_precision", "subset_accuracy"),
        *("best_micro_f1", "best_micro_f1_threshold"),
    ],
}
LABELS = {
    "token_classification": ["B-PLACE", "B-THING", "I-THING", "O"],
    "multi_label": ["cat", "film", "movie", "plot"],
}
LESSON = ("training.max_steps=150", "training.eval_steps=75", "training.learning_rate=0.02")


@pytest.fixture(scope="module", params=METRICS)
def job(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Job]:
    """A run on tiny files, whose model has learned something."""
    folder = tmp_path_factory.mktemp("job")
    base = save_base(folder / "base", initializer_range=0.05)
    loaded = recipe(request.param, folder, base, *LESSON, train=96, dev=24)
    return request.param, base, train(loaded, folder / "run")


def test_scores_of_the_run_are_those_of_its_adapter(job: tuple[str, Path, Job]) -> None:
    task, base, done = job
    metrics = json.loads((done.folder / "metrics.json").read_text())
    assert (metrics["task"], metrics["base"]) == (task, str(base))
    assert list(metrics["metrics"]) == METRICS[task]
    assert metrics["main_metric"] == METRICS[task][0]
    constant = metrics["baselines"]["constant"][METRICS[task][0]]
    best = metrics["metrics"][METRICS[task][0]]
    assert best > constant + 0.3, "it learns"
    again = evaluate(str(done.folder), (), Watcher())
    assert again.metrics == metrics["metrics"]
    assert (again.task, again.main_metric) == (task, METRICS[task][0])
    assert again.rows == metrics["validation_rows"]
    assert evaluate(
        str(done.folder), ["training.eval_batch_size=1"], Watcher()
    ).metrics == pytest.approx(again.metrics)
    contents = read_adapter(done.folder / "adapter.safetensors")
    assert contents.model["labels"] == LABELS[task]
    assert contents.info["task"]["type"] == task
    assert "labels" not in contents.info["task"], "found in the data, so numbers are only names"
    kept = load_recipe(str(done.folder / "recipe.yaml")).recipe
    assert kept == with_absolute_paths(done.plan.recipe, done.folder)


def test_the_merged_model_scores_the_same_with_other_libraries(
    job: tuple[str, Path, Job], tmp_path: Path
) -> None:
    """Row by row, with transformers, seqeval and scikit-learn."""
    task, base, done = job
    merged = merge(str(base), str(done.folder), str(tmp_path / "merged"))
    assert merged.difference <= 1e-5
    tokenizer = transformers.AutoTokenizer.from_pretrained(merged.folder)
    model = getattr(transformers, merged.model_class).from_pretrained(merged.folder).eval()
    names = model.config.id2label
    if task == "token_classification":
        rows = [row for row in tagged_rows(24, seed=1) if len(row["tokens"]) <= 46]
        found = []
        for row in rows:
            inputs = tokenizer(row["tokens"], is_split_into_words=True, return_tensors="pt")
            with torch.no_grad():
                best = model(**inputs).logits[0].argmax(-1)
            first = [inputs.word_ids().index(word) for word in range(len(row["tokens"]))]
            found.append([names[best[token].item()] for token in first])
        assert len(rows) == 24, "no sentence in several windows, which have other neighbors"
        expected = f1_score([row["ner_tags"] for row in rows], found)
    else:
        assert model.config.problem_type == "multi_label_classification"
        rows = label_set_rows(24, seed=1)
        with torch.no_grad():
            given = [
                (model(**tokenizer(row["text"], return_tensors="pt")).logits[0] >= 0).tolist()
                for row in rows
            ]
        true = [[name in row["labels"] for name in names.values()] for row in rows]
        expected = f1_of_sets(np.array(true), np.array(given), average="micro")
    assert done.metrics["metrics"][METRICS[task][0]] == pytest.approx(expected)
