"""The task that rows seem to be for, and what is said where that is unclear."""

import random
from typing import Any

import pytest

from dcft_cli.data.rows import Rows
from dcft_cli.errors import DataError
from dcft_cli.tasks.guess import Guess, guess_task
from tests.samples import label_set_rows, opinion, question_rows, tagged_rows

DRAW = random.Random(0)


def rows_of(count: int = 60, **columns: Any) -> Rows:
    """Rows whose columns are made by functions of the row's number."""
    records = [{name: make(n) for name, make in columns.items()} for n in range(count)]
    return Rows(records, list(columns), "data.csv")


def from_records(records: list[dict[str, Any]]) -> Rows:
    return Rows(records, list(records[0]), "data.jsonl")


def prose(number: int) -> str:
    return f"{opinion(number % 2 == 0, DRAW)} and it is {opinion(True, DRAW)}"


def one_of(*values: Any) -> Any:
    return lambda number: values[number % len(values)]


def found(guess: Guess) -> tuple[Any, ...]:
    return guess.task, guess.text, guess.label, dict(guess.settings)


@pytest.mark.parametrize(
    ("label", "task", "settings"),
    [
        (one_of("billing", "delivery", "other"), "classification", {}),
        (one_of("account or card", "a question about something else"), "classification", {}),
        (one_of(0, 1), "classification", {}),
        (one_of("0", "1", "2"), "classification", {}),
        (one_of(True, False), "classification", {}),
        (one_of(1.0, 2.0, 3.0, None), "classification", {}),
        (lambda n: n / 7, "regression", {}),
        (lambda n: f"{n % 9}.5", "regression", {}),
        (lambda n: 3 * n % 41 + 100, "regression", {}),
        (one_of(["a"], ["a", "b"], []), "multi_label", {}),
        (one_of("['a']", "['a', 'b']", "[]"), "multi_label", {}),
        (one_of("[a]", "[a, b]", "[]"), "multi_label", {}),  # and an error when they are read
        (one_of("a", "a|b", "b", ""), "multi_label", {}),
        (one_of("a", "a; b", "b", "c", "c; a"), "multi_label", {"data.separator": ";"}),
        # A comma within a name separates nothing.
        (one_of("Cards, payments", "Loans"), "classification", {}),
    ],
)
def test_the_task_follows_from_the_label(label: Any, task: str, settings: dict) -> None:
    rows = rows_of(id=lambda n: n + 100, body=prose, outcome=label)
    assert found(guess_task(rows)) == (task, ("body",), ("outcome",), settings)
    known = guess_task(rows, ["body"], ["outcome"])
    assert found(known) == (task, ("body",), ("outcome",), settings)


def test_several_columns_of_0_and_1_are_labels() -> None:
    rows = rows_of(text=prose, toxic=one_of(0, 0, 1), insult=one_of("1", "0"), threat=one_of(0, 1))
    assert found(guess_task(rows)) == ("multi_label", ("text",), ("toxic", "insult", "threat"), {})
    (rows, label) = rows_of(text=prose, toxic=one_of(0, 0, 1)), ("toxic",)
    assert found(guess_task(rows)) == ("classification", ("text",), label, {})


def test_words_with_labels() -> None:
    expected = ("token_classification", ("tokens",), ("ner_tags",), {})
    rows = tagged_rows(20)
    assert found(guess_task(from_records(rows))) == expected
    for row in rows:
        row |= {"id": 1, "pos_tags": [0 for _ in row["tokens"]], "text": " ".join(row["tokens"])}
    assert found(guess_task(from_records(rows))) == expected
    others = [{"words": r["tokens"], "pos": r["pos_tags"], "slots": r["ner_tags"]} for r in rows]
    with pytest.raises(DataError, match="which are the labels") as caught:
        guess_task(from_records(others))
    assert "\n  pos: lists with 1 different entries\n  slots: lists with 4" in caught.value.message
    assert "--label COLUMN" in caught.value.hint
    assert found(guess_task(from_records(others), label=["pos"]))[2] == ("pos",)


@pytest.mark.parametrize("unanswerable", [False, True])
def test_questions_with_answers(unanswerable: bool) -> None:
    rows = question_rows(12, unanswerable=unanswerable)
    settings = {"task.unanswerable": True} if unanswerable else {}
    expected = ("question_answering", ("question", "context"), ("answers",), settings)
    assert found(guess_task(from_records(rows))) == expected
    renamed = [{"q": r["question"], "passage": r["context"], "a": r["answers"]} for r in rows]
    with pytest.raises(DataError, match="which columns hold the question") as caught:
        guess_task(from_records(renamed))
    assert "--text QUESTION --text CONTEXT" in caught.value.hint
    assert guess_task(from_records(renamed), ["q", "passage"]).label == ("a",)


def test_lists_of_labels_are_no_words() -> None:
    assert guess_task(from_records(label_set_rows(40))).task == "multi_label"


@pytest.mark.parametrize(
    "names",
    [("sentence1", "sentence2"), ("text_a", "text_b"), ("premise", "hypothesis"), ("Q1", "Q2")],
)
def test_pairs_are_known_by_their_names(names: tuple[str, str]) -> None:
    rows = rows_of(**dict.fromkeys(names, prose), label=one_of("same", "different"))
    assert guess_task(rows).text == names


def test_the_longest_texts_are_the_text() -> None:
    columns = {
        "ticket_id": lambda n: f"T-{n:05}",
        "created": lambda n: f"2026-01-{n % 28 + 1:02} 10:{n % 60:02}",
        "customer": lambda n: f"Ann Lee{n}",
        "story": lambda n: " ".join(prose(n + k) for k in range(5)),
        "queue": one_of("x", "y"),
    }
    guess = guess_task(rows_of(**columns))
    assert (guess.text, guess.label) == (("story",), ("queue",))
    assert "longest" in guess.reasons["text"]
    assert guess.reasons["label"] == "2 different values"


def test_of_texts_of_similar_length_a_usual_name_decides() -> None:
    columns = {"subject": prose, "message": lambda n: prose(n) + prose(n), "kind": one_of("x", "y")}
    guess = guess_task(rows_of(**columns))
    assert guess.text == ("message",)
    assert guess.reasons["text"].startswith("by its name, not subject; ")
    columns["reply"] = columns.pop("message")
    with pytest.raises(DataError, match="several columns may hold the texts") as caught:
        guess_task(rows_of(**columns))
    assert "\n  reply: texts of" in caught.value.message
    assert "subject: texts of" in caught.value.message
    assert "--text COLUMN" in caught.value.hint
    assert guess_task(rows_of(**columns), ["subject", "reply"]).text == ("subject", "reply")


def test_single_words_are_texts_too() -> None:
    rows = rows_of(word=lambda n: f"word{n}", valence=lambda n: n / 10)
    assert found(guess_task(rows)) == ("regression", ("word",), ("valence",), {})


def test_of_several_labels_a_usual_name_decides() -> None:
    columns = {"text": prose, "priority": one_of("low", "high"), "category": one_of("x", "y", "z")}
    guess = guess_task(rows_of(**columns))
    assert guess.label == ("category",)
    assert guess.reasons["label"] == "3 different values; by its name, not priority"
    columns |= {"label_text": one_of("good", "bad"), "label": one_of(0, 1)}
    assert guess_task(rows_of(**columns)).label == ("label",)


def test_unclear_labels_are_listed() -> None:
    columns = {"text": prose, "queue": one_of("x", "y", "z"), "hours": lambda n: n / 3}
    with pytest.raises(DataError, match="several columns may hold the labels") as caught:
        guess_task(rows_of(**columns))
    assert "\n  queue: 3 different values\n  hours: 60 different numbers" in caught.value.message
    assert caught.value.hint == "Name it: dcft init data.csv --label COLUMN"
    # The type of task can decide as well.
    assert guess_task(rows_of(**columns), task="regression").label == ("hours",)
    with pytest.raises(DataError, match="no column seems to hold labels"):
        guess_task(rows_of(text=prose, id=lambda n: n))
    with pytest.raises(DataError, match="label: always 'x'"):
        guess_task(rows_of(text=prose, label=one_of("x")))
    with pytest.raises(DataError, match="no column seems to hold texts"):
        guess_task(rows_of(a=one_of(1, 2), b=one_of("x", "y")))


def test_what_is_known_is_not_guessed() -> None:
    columns = {"a": prose, "b": prose, "stars": one_of(1, 2, 3, 4, 5), "c": one_of("x", "y")}
    rows = rows_of(**columns)
    assert found(guess_task(rows, ["b"], ["stars"])) == ("classification", ("b",), ("stars",), {})
    assert guess_task(rows, ["b"], ["stars"], "regression").task == "regression"
    assert guess_task(rows, ["b"], ["c"], "multi_label").task == "multi_label"
    for text, label in ((["bb"], ["c"]), (["b"], ["cc"])):
        with pytest.raises(DataError, match="has no column"):
            guess_task(rows, text, label)
    for task in ("token_classification", "question_answering"):
        with pytest.raises(DataError, match=f"no columns for {task}") as caught:
            guess_task(rows, task=task)
        assert "A row is {" in caught.value.hint


@pytest.mark.parametrize(
    "columns",
    [
        {"Great film": prose, "good": one_of("good", "bad")},
        {"Great film": prose, "3.5": lambda n: f"{n / 7}"},
        {"Great film": prose, "2": one_of("1", "0")},
    ],
)
def test_a_row_in_place_of_the_header(columns: dict) -> None:
    with pytest.raises(DataError, match="seems to be a row") as caught:
        guess_task(rows_of(**columns))
    assert "data.columns" in caught.value.hint


def test_a_label_may_be_called_like_its_column() -> None:
    rows = rows_of(text=prose, spam=one_of("spam", "ham"))
    assert found(guess_task(rows)) == ("classification", ("text",), ("spam",), {})


def test_numbered_columns_besides_the_text_are_no_pair() -> None:
    columns = {"address1": lambda n: f"street no {n}", "address2": lambda n: f"house no {n}"}
    rows = rows_of(**columns, body=lambda n: prose(n) + prose(n), label=one_of("x", "y"))
    assert guess_task(rows).text == ("body",)
