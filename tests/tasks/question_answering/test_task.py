import random
import unicodedata

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch.nn.functional import cross_entropy
from transformers import PreTrainedTokenizerFast

from dcft_cli.errors import RecipeError
from dcft_cli.recipe import DataSection, TaskSection
from dcft_cli.recipe.schema import TaskName
from dcft_cli.tasks import build_task
from dcft_cli.tasks.base import Task

PERFECT = {"exact_match": 100.0, "f1": 100.0}
LETTERS = "abcdefghijklmnopqrstuvwxyzéß日本🙂"


def task(name: TaskName = "squad_v1", max_length: int = 96, document_stride: int = 40) -> Task:
    section = TaskSection(name=name, max_answer_length=40)
    return build_task(section, DataSection(max_length=max_length, document_stride=document_stride))


def random_questions(count: int, seed: int = 0) -> Dataset:
    """Contexts of random words; the answer is one word or two of them."""
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        words = ["".join(rng.choices(LETTERS, k=rng.randint(1, 4))) for _ in range(40)]
        first = rng.randrange(len(words) - 1)
        text = " ".join(words[first : first + rng.randint(1, 2)])
        start = len(" ".join([*words[:first], ""])) if first else 0
        answers = {"text": [text], "answer_start": [start]}
        context = " ".join(words)
        assert context[start:].startswith(text)
        question = " ".join(words[:3])
        rows.append({"question": question, "context": context, "answers": answers})
    return Dataset.from_list(rows)


def test_targets_decode_to_the_answers(any_tokenizer: PreTrainedTokenizerFast) -> None:
    questions = random_questions(60)
    assert scores_of_the_targets(questions, any_tokenizer) == PERFECT


def test_the_loss_does_not_depend_on_padding() -> None:
    squad, logits = task(), torch.randn(3, 9, 2, dtype=torch.float64)
    batch = {
        "attention_mask": torch.arange(9) < torch.tensor([[9], [4], [6]]),
        "start_positions": torch.tensor([8, 0, 2]),
        "end_positions": torch.tensor([8, 3, 5]),
    }
    logits[1:, 6:] += 50.0  # what a model computes for padding, it may be sure of
    whole = squad.loss({"start_logits": logits[..., 0], "end_logits": logits[..., 1]}, batch)
    alone = []
    for row, length in enumerate([9, 4, 6]):
        own = {name: value[row : row + 1] for name, value in batch.items()}
        own["attention_mask"] = own["attention_mask"][:, :length]
        start, end = logits[row : row + 1, :length].unbind(-1)
        targets = own["start_positions"], own["end_positions"]
        by_hand = (cross_entropy(start, targets[0]) + cross_entropy(end, targets[1])) / 2
        found = squad.loss({"start_logits": start, "end_logits": end}, own)
        assert torch.allclose(found, by_hand, rtol=1e-12)
        alone.append(found)
    assert torch.allclose(whole, torch.stack(alone).mean(), rtol=1e-12)


def scores_of_the_targets(
    questions: Dataset, tokenizer: PreTrainedTokenizerFast, **lengths: int
) -> dict[str, float]:
    """Score a model that predicts its targets; contexts are longer than a window."""
    eval_set = task(**lengths).evaluation_set("", questions, tokenizer)
    training = task(**lengths).encode_training(questions, tokenizer)
    order = np.argsort(-np.array(training["length"][:]), kind="stable")
    training = training.select(order)
    assert training["input_ids"][:] == eval_set.features["input_ids"][:]
    assert len(training) > 1.5 * len(questions), "contexts are to be windowed"

    longest = max(training["length"][:])
    start = np.full((len(training), longest), -100, dtype=np.float32)
    end = start.copy()
    for window, features in enumerate(training):
        start[window, : features["length"]] = end[window, : features["length"]] = 0
        start[window, features["start_positions"]] = 10
        end[window, features["end_positions"]] = 10
    return eval_set.score((start, end), None)


def accented(form: str, *, marks: str = "") -> Dataset:
    """Questions whose answer is at the start, in the middle or at the end of the context.

    Args:
        form: Unicode form of all texts.
        marks: characters to put around and into the answer.
    """
    rows = []
    for name in ("André", "Émile Zola", "Zoé"):
        for before, after in ((0, 40), (20, 20), (40, 0), (7, 33)):
            answer = unicodedata.normalize(form, "".join(f"{letter}{marks}" for letter in name))
            words = [f"w{number}" for number in range(before)]
            start = len(" ".join([*words, ""])) if before else 0
            context = " ".join([*words, answer, *(f"é{number}" for number in range(after))])
            answers = {"text": [answer], "answer_start": [start]}
            rows.append({"question": "who ?", "context": context, "answers": answers})
    return Dataset.from_list(rows)


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_accents_in_either_form(form: str, any_tokenizer: PreTrainedTokenizerFast) -> None:
    assert scores_of_the_targets(accented(form), any_tokenizer) == PERFECT


@pytest.mark.parametrize("mark", ["\u0301", "\u200b", "\ufeff", "\x00", "\ufffd", "\x7f", "\u00ad"])
def test_characters_that_make_no_token(mark: str, tokenizer: PreTrainedTokenizerFast) -> None:
    assert scores_of_the_targets(accented("NFC", marks=mark), tokenizer) == PERFECT


@pytest.mark.parametrize(
    "context", ["{}(\u200btwo{}) three", "one two\u200b {}", "\ufefftwo one {}"]
)
@pytest.mark.parametrize("text", ["two", "\u200btwo", "two\u200b", "\ufefftwo"])
def test_references_may_have_such_characters_or_not(
    context: str, text: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    context = context.format("zero " * 30, " four" * 30)
    if text in context:
        answers = {"text": [text], "answer_start": [context.index(text)]}
        rows = [{"question": "which ?", "context": context, "answers": answers}]
        assert scores_of_the_targets(Dataset.from_list(rows), tokenizer) == PERFECT


def test_an_answer_has_its_accent(tokenizer: PreTrainedTokenizerFast) -> None:
    context = "he met Andre\u0301 there"
    answers = {"text": ["Andre\u0301"], "answer_start": [7]}
    rows = [{"question": "who ?", "context": context, "answers": answers}]
    encoded = task()._encode(Dataset.from_list(rows), tokenizer, targets=False)
    ends = encoded.with_format("numpy")["spans"][0].reshape(-1, 2)[:, 1].tolist()
    assert 13 in ends and 12 not in ends


def test_dropped_characters_after_many_rows_without(tokenizer: PreTrainedTokenizerFast) -> None:
    plain = [{"question": "q", "context": "a b", "answers": {"text": ["a"], "answer_start": [0]}}]
    rows = plain * 1500 + accented("NFD").to_list()
    encoded = task()._encode(Dataset.from_list(rows), tokenizer, targets=False)
    assert encoded["dropped"][0] == [] and encoded["dropped"][-1]


def test_features_are_the_inputs_of_the_model(any_tokenizer: PreTrainedTokenizerFast) -> None:
    inputs = {*any_tokenizer.model_input_names, "length"}
    training = task().encode_training(random_questions(3), any_tokenizer)
    assert set(training.column_names) == inputs | {"start_positions", "end_positions"}
    features = task().evaluation_set("dev", random_questions(3), any_tokenizer).features
    assert set(features.column_names) == inputs
    assert features["length"][:] == [len(ids) for ids in features["input_ids"]]
    assert features["length"][:] == sorted(features["length"][:], reverse=True)
    assert max(features["length"]) == 96


def test_a_stride_that_does_not_fit(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(RecipeError, match="document_stride"):
        task(max_length=64, document_stride=64).encode_training(random_questions(1), tokenizer)


def test_no_answer_must_lead_by_more_than_the_threshold(tokenizer: PreTrainedTokenizerFast) -> None:
    answers = [{"text": ["cat"], "answer_start": [4]}, {"text": [], "answer_start": []}]
    rows = [
        {"question": "Who?", "context": "The cat sat.", "answers": references}
        for references in answers
    ]
    built = task("squad_v2", 64, 8)
    eval_set = built.evaluation_set("", Dataset.from_list(rows), tokenizer)
    shape = (2, eval_set.features["length"][0])
    start, end = np.zeros(shape), np.zeros(shape)
    start[1, 0] = 5  # the features keep the order of rows of one length
    scores = eval_set.score((start, end), None)
    assert scores["no_answer_exact_match"] == 100.0
    assert scores["best_f1"] >= scores["f1"]
