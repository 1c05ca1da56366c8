"""What each family predicts: one plain mapping per row, in the order of the rows."""

import json
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax
from transformers import PreTrainedTokenizerFast

from dcft_cli.data.prediction_set import Prediction, PredictionSet, shortened
from dcft_cli.data.rows import Rows
from dcft_cli.errors import DataError, TrainingError
from dcft_cli.recipe import DataSection, TaskSection
from dcft_cli.tasks import build_task
from dcft_cli.tasks.base import Task
from dcft_cli.tasks.decision import Decision
from dcft_cli.tasks.token_classification.rows import word_spans

TEXTS = ["a b", "a b c d e f", "a", "a b c"]  # of different lengths: sorted for the model
TAGS = ["O", "B-CITY", "I-CITY"]


def task_of(kind: Any, *, data: dict[str, Any] | None = None, **settings: Any) -> Task:
    return build_task(
        TaskSection(type=kind, **settings), DataSection(**{"text": ["text"], **(data or {})})
    )


def rows_of(*values: Any, column: str = "text") -> Rows:
    return Rows([{column: value} for value in values], [column], "rows.jsonl")


def encode(task: Task, rows: Rows, tokenizer: PreTrainedTokenizerFast) -> PredictionSet:
    dataset = task.prepare_inputs(rows)
    assert task.target_column not in dataset.column_names
    found = task.prediction_set(dataset, tokenizer)
    lengths = found.features["length"]
    assert lengths == sorted(lengths, reverse=True) == [*map(len, found.features["input_ids"])]
    assert len(found.rows) == len(lengths)
    assert "labels" not in found.features
    return found


def of_rows(found: PredictionSet, by_row: Any) -> np.ndarray:
    """Outputs in the order of the features, from those of each row."""
    return np.array([by_row[row] for row in found.rows], np.float32)


def plain(predictions: list[Prediction]) -> list[Prediction]:
    """Check that predictions are plain values: JSON reads back the same."""
    assert json.loads(json.dumps(predictions)) == predictions
    return predictions


def test_classification(any_tokenizer: PreTrainedTokenizerFast) -> None:
    task = task_of("classification", labels=["x", "y", "z"])
    found = encode(task, rows_of(*TEXTS), any_tokenizer)
    logits = np.array([[3, 1, 0], [0, 1, 5], [0, 2, 1], [4, 0, 0]])
    predictions = plain(found.predict(of_rows(found, logits)))
    assert [row["prediction"] for row in predictions] == ["x", "z", "y", "x"]
    for row, expected in zip(predictions, softmax(logits, axis=1), strict=True):
        assert list(row["probabilities"]) == ["x", "y", "z"]
        assert list(row["probabilities"].values()) == pytest.approx(expected, rel=1e-6)
        assert row["probability"] == row["probabilities"][row["prediction"]]
    task.decision = Decision(temperature=4.0)
    calibrated = found.predict(of_rows(found, logits))
    assert [row["prediction"] for row in calibrated] == ["x", "z", "y", "x"]
    expected = softmax(logits / 4, axis=1).max(axis=1)
    assert [row["probability"] for row in calibrated] == pytest.approx(expected, rel=1e-6)


def test_pairs(any_tokenizer: PreTrainedTokenizerFast) -> None:
    task = task_of("classification", labels=["x", "y"], data={"text": ["first", "second"]})
    rows = Rows([{"first": "a", "second": "b c"}], ["first", "second"], "rows.jsonl")
    (ids,) = encode(task, rows, any_tokenizer).features["input_ids"]
    assert ids == any_tokenizer("a", "b c")["input_ids"]


def test_multi_label(tokenizer: PreTrainedTokenizerFast) -> None:
    task = task_of("multi_label", labels=["x", "y"], threshold=0.6)
    found = encode(task, rows_of(*TEXTS), tokenizer)
    logits = np.array([[1, -1], [1, 2], [-3, 0.1], [0.3, 5]])
    predictions = plain(found.predict(of_rows(found, logits)))
    assert [row["prediction"] for row in predictions] == [["x"], ["x", "y"], [], ["y"]]
    values = [list(row["probabilities"].values()) for row in predictions]
    np.testing.assert_allclose(values, expit(logits), rtol=1e-6)


def test_regression(tokenizer: PreTrainedTokenizerFast) -> None:
    found = encode(task_of("regression"), rows_of(*TEXTS), tokenizer)
    predictions = plain(found.predict(of_rows(found, [[0.1], [2.5], [-3], [1e-9]])))
    assert predictions == [{"prediction": v} for v in (0.1, 2.5, -3, 1e-9)]


@pytest.mark.parametrize(
    ("kind", "target", "expected"),
    [
        ("classification", 1, "X"),
        ("multi_label", [0.0, 1.0], ["X"]),
        ("regression", float(np.float32(-0.4)), -0.4),
        ("token_classification", [1, 0], ["X", "O"]),
        ("question_answering", {"text": ["a"], "answer_start": [0]}, ["a"]),
    ],
)
def test_true_labels_are_written_as_predictions_are(kind: Any, target: Any, expected: Any) -> None:
    data = {"text": ["question", "context"]} if kind == "question_answering" else {}
    assert task_of(kind, data=data, labels=["O", "X"]).describe_target(target) == expected


def tag(found: PredictionSet, task: Task, tags: list[list[str]]) -> list[Prediction]:
    """Predict tags, one a letter, whatever the window."""
    ids = found.features["input_ids"]
    outputs = np.zeros((len(ids), max(map(len, ids)), len(task.labels)), np.float32)
    special = 1  # before the words
    for window, row in enumerate(found.rows):
        for place, name in enumerate(tags[row]):
            outputs[window, special + place, task.labels.index(name)] = 2
    return plain(found.predict(outputs))


def test_entities_have_offsets_in_the_text(tokenizer: PreTrainedTokenizerFast) -> None:
    task = task_of("token_classification", labels=TAGS, data={"text": ["tokens"]})
    words, text = ["a", "b", "c", "d"], "  a \n b  c d "
    found = encode(task, rows_of(words, text, ["a"], column="tokens"), tokenizer)
    tags = ["O", "B-CITY", "I-CITY", "B-CITY"]
    joined, split, short = tag(found, task, [tags, tags, ["O"]])
    probability = pytest.approx(float(softmax([2, 0, 0])[0]), rel=1e-6)
    assert joined["prediction"] == split["prediction"] == tags
    assert split["probabilities"] == [probability] * 4
    assert joined["entities"] == [
        {"type": "CITY", "text": "b c", "start": 2, "end": 5, "probability": probability},
        {"type": "CITY", "text": "d", "start": 6, "end": 7, "probability": probability},
    ]
    for entity, expected in zip(split["entities"], ["b  c", "d"], strict=True):
        assert text[entity["start"] : entity["end"]] == entity["text"] == expected
    assert short == {"prediction": ["O"], "probabilities": [probability], "entities": []}


def test_words_without_tokens_have_no_probability(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = rows_of(["a", "\n", "b"], column="tokens")
    for labels, missing in ((TAGS, "O"), (["NOUN", "VERB"], None)):
        task = task_of("token_classification", labels=labels, data={"text": ["tokens"]})
        found = encode(task, rows, tokenizer)
        (prediction,) = tag(found, task, [[labels[0], labels[0]]])
        assert prediction["prediction"] == [labels[0], missing, labels[0]]
        assert prediction["probabilities"][1] is None
        assert ("entities" in prediction) is (labels is TAGS)


def test_long_sentences_are_predicted_whole(any_tokenizer: PreTrainedTokenizerFast) -> None:
    data = {"text": ["tokens"], "max_length": 8, "document_stride": 2}
    task = task_of("token_classification", labels=TAGS, data=data)
    found = encode(task, rows_of(["a"] * 30, ["b"], column="tokens"), any_tokenizer)
    assert len(found.rows) > 4 and set(found.rows) == {0, 1}
    outputs = np.zeros((len(found.rows), 8, 3), np.float32)
    outputs[..., 1] = 1
    long, short = found.predict(outputs)
    assert long["prediction"] == ["B-CITY"] * 30 and short["prediction"] == ["B-CITY"]
    assert None not in long["probabilities"]


def answers(task: Task, context: str, tokenizer: PreTrainedTokenizerFast, null: float) -> Any:
    """Predict for a window in which the third and fourth context token score 5 each."""
    rows = Rows([{"question": "a b", "context": context}], ["question", "context"], "rows.jsonl")
    found = encode(task, rows, tokenizer)
    (ids,) = found.features["input_ids"]
    encoded = tokenizer("a b", context)
    first = encoded.sequence_ids().index(1)
    start, end = np.zeros((2, 1, len(ids)), np.float32)
    start[0, first + 2] = end[0, first + 3] = 5
    cls = ids.index(tokenizer.cls_token_id)
    start[0, cls] = null
    return plain(found.predict((start, end)))


def test_answers_have_offsets_in_the_context(any_tokenizer: PreTrainedTokenizerFast) -> None:
    data = {"text": ["question", "context"]}
    context = "q w e r t y"
    always = task_of("question_answering", data=data)
    maybe = task_of("question_answering", data=data, unanswerable=True, null_threshold=1.0)
    for task, null in ((always, 0.0), (maybe, 0.0), (maybe, 11.0), (always, 99.0)):
        (found,) = answers(task, context, any_tokenizer, null)
        assert context[found["start"] : found["end"]] == found["prediction"] != ""
        assert found["prediction"] == found["prediction"].strip()
        assert found["score"] == 10 - null
    (found,) = answers(maybe, context, any_tokenizer, 11.5)
    assert found == {"prediction": "", "start": None, "end": None, "score": -1.5}


@pytest.mark.parametrize(
    ("kind", "rows", "message"),
    [
        ("classification", rows_of("a", " ", None), "`text` is empty"),
        ("regression", rows_of("a", column="txt"), "has no column `text`"),
        ("token_classification", rows_of("a", ""), "`text` is empty"),
        ("token_classification", rows_of(["a", 1]), "word 2 is 1, not a text"),
        ("token_classification", rows_of(None), "`text` is missing"),
    ],
)
def test_rows_that_cannot_be_predicted(kind: Any, rows: Rows, message: str) -> None:
    with pytest.raises(DataError, match=message):
        task_of(kind, labels=["O", "X"]).prepare_inputs(rows)


def test_outputs_that_are_not_finite(tokenizer: PreTrainedTokenizerFast) -> None:
    found = encode(task_of("regression"), rows_of("a"), tokenizer)
    with pytest.raises(TrainingError, match="not finite"):
        found.predict(np.array([[np.nan]]))


def test_spans_of_words() -> None:
    assert word_spans("a a aa", ["a", "a", "aa"]) == [(0, 1), (2, 3), (4, 6)]
    assert word_spans("a   b", ["a", " ", "b"]) == [(0, 1), (2, 3), (4, 5)]
    assert word_spans("new york is", ["new york", "is"]) == [(0, 8), (9, 11)]


def test_numbers_are_short_and_exact_to_float32() -> None:
    for value in (0.1, 1 / 3, 123456.789, 1e-30):
        assert shortened(float(np.float32(value))) == pytest.approx(value, rel=1e-7)
    assert repr(shortened(float(np.float32(0.1)))) == "0.1"
