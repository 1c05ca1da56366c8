from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from dcft_cli.errors import DataError
from dcft_cli.tasks import EvaluationSet, LoadedTask
from tests.tasks.conftest import Write
from tests.tasks.token_classification.test_rows import ROWS, TAGS, load, row


def evaluation_set(loaded: LoadedTask, tokenizer: PreTrainedTokenizerFast) -> EvaluationSet:
    return loaded.task.evaluation_set("", loaded.validation[""].dataset, tokenizer)


def logits_for(
    eval_set: EvaluationSet, tokenizer: PreTrainedTokenizerFast, label_of: Callable[[str], int]
) -> np.ndarray[Any, Any]:
    """Logits of a model that looks at the letter of each token, padded as a trainer pads."""
    logits = np.full((len(eval_set.features), max(eval_set.features["length"]), len(TAGS)), -100.0)
    for number, ids in enumerate(eval_set.features["input_ids"]):
        logits[number, : len(ids)] = 0.0
        for place, piece in enumerate(tokenizer.convert_ids_to_tokens(ids)):
            logits[number, place, label_of(piece)] = 1.0
    return logits


def test_targets_are_at_first_tokens(jsonl: Write, any_tokenizer: PreTrainedTokenizerFast) -> None:
    loaded = load(jsonl(ROWS))
    assert loaded.train is not None
    training = loaded.task.encode_training(loaded.train.dataset, any_tokenizer)
    columns = {*any_tokenizer.model_input_names, "labels", "length"}
    assert set(training.column_names) == columns
    for labels, tags in zip(training["labels"], ([1, 2, 3, 3, 0], [3, 3, 3]), strict=True):
        assert [label for label in labels if label != -100] == tags
    batch = loaded.task.collator(any_tokenizer)(
        [{name: row[name] for name in columns - {"length"}} for row in training]
    )
    assert batch["labels"].shape == batch["input_ids"].shape
    assert batch["labels"][1, -1] == -100


def test_every_word_counts_once_however_long_the_sentence(
    jsonl: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    tags = ["B-PER", "I-PER", "O", "B-LOC"] * 25
    path = jsonl([ROWS[0], {"tokens": ["ab"] * 100, "ner_tags": tags}])
    loaded = load(path, max_length=16, document_stride=4)
    assert loaded.train is not None
    training = loaded.task.encode_training(loaded.train.dataset, tokenizer)
    assert max(training["length"]) <= 16
    flat = [label for labels in training["labels"][:] for label in labels if label != -100]
    assert flat == [1, 2, 3, 3, 0] + [TAGS.index(tag) for tag in tags]
    features = evaluation_set(loaded, tokenizer).features
    assert set(features.column_names) == {*tokenizer.model_input_names, "length"}
    assert features["length"][:] == sorted(training["length"], reverse=True)


def test_a_perfect_model_scores_1_over_all_windows(
    jsonl: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    """Each word's label is its letter's: entities run on from one window into the next."""
    letters = "lpioo" * 30 + "piiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiiii"
    tags = [{"l": "B-LOC", "p": "B-PER", "i": "I-PER", "o": "O"}[letter] for letter in letters]
    other = row("so on", "O O")
    path = jsonl([other, {"tokens": list(letters), "ner_tags": tags}, other])
    loaded = load(path, list(TAGS), max_length=12, document_stride=3)
    eval_set = evaluation_set(loaded, tokenizer)
    perfect = logits_for(eval_set, tokenizer, lambda piece: "lpi".find(piece[0]) % 4)
    scores = eval_set.score(perfect, None)
    assert scores == {"f1": 1.0, "precision": 1.0, "recall": 1.0, "accuracy": 1.0}
    assert loaded.main_metric == "f1"
    constant = eval_set.score(logits_for(eval_set, tokenizer, lambda piece: 3), None)
    assert constant == {
        "f1": 0.0,
        "precision": 0.0,
        "recall": 0.0,
        "accuracy": pytest.approx(64 / 194),
    }


def test_words_without_tokens_count_as_outside(
    jsonl: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    invisible = "\u200b"
    words = [["x", invisible, "\n", "x"], [invisible]]
    rows = [
        {"tokens": words[0], "ner_tags": ["B-PER", "I-PER", "O", "B-PER"]},
        {"tokens": words[1], "ner_tags": ["B-PER"]},
    ]
    loaded = load(jsonl(rows), list(TAGS))
    eval_set = evaluation_set(loaded, tokenizer)
    assert len(eval_set.features) == 1
    scores = eval_set.score(logits_for(eval_set, tokenizer, lambda piece: 1), None)
    # Predicted: PER 0, PER 3; true: PER 0-1, PER 3, and one in the sentence without tokens.
    assert scores == pytest.approx(
        {"f1": 2 / 5, "precision": 1 / 2, "recall": 1 / 3, "accuracy": 3 / 5}
    )


def test_rows_without_any_token(jsonl: Write, tokenizer: PreTrainedTokenizerFast) -> None:
    loaded = load(jsonl([{"tokens": ["\u200b", "\n"], "ner_tags": ["B-PER", "O"]}]), list(TAGS))
    with pytest.raises(DataError, match="no token of any word of these 1 rows"):
        evaluation_set(loaded, tokenizer)


def test_labels_of_words_are_scored_by_the_word(
    jsonl: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [{"tokens": ["a", "b", "\u200b", "c"], "ner_tags": ["NN", "VB", "NN", "NN"]}]
    loaded = load(jsonl(rows), ["NN", "VB", "JJ", "XX"])
    assert loaded.main_metric == "accuracy"
    eval_set = evaluation_set(loaded, tokenizer)
    scores = eval_set.score(
        logits_for(eval_set, tokenizer, lambda piece: "ab".find(piece) % 3), None
    )
    # Predicted NN VB (nothing) JJ: F1 of NN 2 / (1 + 3), of VB 1, of JJ 0.
    assert scores == pytest.approx({"accuracy": 1 / 2, "macro_f1": 1 / 2})


def test_entities_are_reported_by_type_and_confusions_by_word(
    jsonl: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [row("p i o l", "B-PER I-PER O B-LOC"), row("l p o", "B-PER B-PER O")]
    loaded = load(jsonl(rows), list(TAGS), task={"calibrate": True})
    eval_set = evaluation_set(loaded, tokenizer)
    number_of = {"l": 0, "p": 1, "i": 2}  # in TAGS; any other letter is O
    logits = 3 * logits_for(eval_set, tokenizer, lambda piece: number_of.get(piece[0], 3))
    eval_set.choose(logits)
    report = eval_set.report(logits)
    assert report is not None
    assert report["unit"] == "entity"
    assert report["classes"] == {
        "LOC": {"support": 1, "predicted": 2, "precision": 0.5, "recall": 1.0, "f1": 2 / 3},
        "PER": {"support": 3, "predicted": 2, "precision": 1.0, "recall": 2 / 3, "f1": 4 / 5},
    }
    assert report["confusions"] == [
        {"label": "PER", "prediction": "LOC", "count": 1, "share": 1 / 4}
    ]
    calibration = report["calibration"]
    assert calibration["temperature"] == loaded.task.decision.temperature != 1.0
    # Six of seven words are right, and the temperature makes them as probable.
    assert calibration["error"] == pytest.approx(0.0, abs=1e-3)


def test_labels_of_words_are_reported_by_the_word(
    jsonl: Write, tokenizer: PreTrainedTokenizerFast
) -> None:
    rows = [{"tokens": ["a", "b", "\u200b", "c"], "ner_tags": ["NN", "VB", "NN", "NN"]}]
    loaded = load(jsonl(rows), ["NN", "VB", "JJ", "XX"])
    eval_set = evaluation_set(loaded, tokenizer)
    report = eval_set.report(logits_for(eval_set, tokenizer, lambda piece: "ab".find(piece) % 3))
    assert report is not None
    assert report["classes"]["NN"]["support"] == 3
    assert report["confusions"] == [
        {"label": "NN", "prediction": "(nothing)", "count": 1, "share": 1 / 3},
        {"label": "NN", "prediction": "JJ", "count": 1, "share": 1 / 3},
    ]
