import json
from pathlib import Path
from typing import Any

import pytest

from dcft_cli.errors import DataError
from dcft_cli.recipe import DataSection, TaskSection
from dcft_cli.tasks import LoadedTask, load_task
from tests.tasks.conftest import Write

CONTEXT = "The cat sat on the mat."


def row(text: str = "cat", start: int = 4, **others: Any) -> dict[str, Any]:
    answers = {"text": [text], "answer_start": [start]}
    return {"question": "Who sat?", "context": CONTEXT, "answers": answers, **others}


def load(validation: str, name: str = "squad_v1", **data: Any) -> LoadedTask:
    section = DataSection(validation=validation, max_length=64, document_stride=8, **data)
    return load_task(TaskSection(name=name), section, training=False)


def test_rows_are_prepared(jsonl: Write) -> None:
    dataset = load(jsonl([row(title="Cats"), row()])).validation[""].dataset
    assert dataset[:] == {
        "question": ["Who sat?"] * 2,
        "context": [CONTEXT] * 2,
        "answers": [{"text": ["cat"], "answer_start": [4]}] * 2,
    }


def test_an_answer_that_is_not_at_its_offset(jsonl: Write) -> None:
    rows = [row(), row("cat", 5), row("mat.", 99), row("cat", -3)]
    with pytest.raises(DataError) as error:
        load(jsonl(rows))
    assert error.value.message.splitlines()[0].endswith("not at its offset in 3 rows:")
    assert error.value.message.splitlines()[1:] == [
        "  row 2 (line 2): at character 5 is 'at ', not 'cat'",
        "  row 3 (line 3): at character 99 is '', not 'mat.'",
        "  row 4 (line 4): at character -3 is '', not 'cat'",
    ]


def test_every_reference_is_checked(jsonl: Write) -> None:
    answers = {"text": ["cat", "mat"], "answer_start": [4, 20]}
    with pytest.raises(DataError, match=r"at character 20 is 'at\.', not 'mat'"):
        load(jsonl([row(answers=answers)]))


@pytest.mark.parametrize(
    "answers",
    [
        None,
        "cat",
        {"text": ["cat"]},
        {"text": ["cat"], "answer_start": []},
        {"text": ["cat"], "answer_start": ["4"]},
        {"text": "cat", "answer_start": 4},
        [{"text": "cat", "answer_start": 4}],
    ],
)
def test_malformed_answers(jsonl: Write, answers: object) -> None:
    with pytest.raises(DataError, match=r"malformed answers in 1 row:\n  row 2 \(line 2\)"):
        load(jsonl([row(), row(answers=answers)]))


def test_an_answer_is_not_empty(jsonl: Write) -> None:
    with pytest.raises(DataError, match="the answer is empty"):
        load(jsonl([row(" ", 3)]))


def test_questions_without_an_answer_must_be_allowed(jsonl: Write) -> None:
    path = jsonl([row(), row(answers={"text": [], "answer_start": []})])
    with pytest.raises(DataError, match=r"without an answer in 1 row:\n  row 2") as error:
        load(path)
    assert "task.unanswerable=true" in error.value.hint
    assert len(load(path, "squad_v2").validation[""].dataset) == 2


def test_the_recipe_names_the_columns(jsonl: Write) -> None:
    own = {"q": "Who?", "passage": CONTEXT, "gold": {"text": ["cat"], "answer_start": [4]}}
    task = TaskSection(type="question_answering")
    data = DataSection(validation=jsonl([own]), text=["q", "passage"], label="gold")
    loaded = load_task(task, data, training=False)
    assert loaded.validation[""].dataset["context"][:] == [CONTEXT]


@pytest.mark.parametrize("start", [[], [-1], [0], [None]])
def test_other_ways_to_write_that_there_is_no_answer(jsonl: Write, start: list[Any]) -> None:
    path = jsonl([row(), row(answers={"text": [""], "answer_start": start})])
    answers = load(path, "squad_v2").validation[""].dataset["answers"][:]
    assert answers[1] == {"text": [], "answer_start": []}
    with pytest.raises(DataError, match="without an answer in 1 row"):
        load(path)


def test_an_answer_at_minus_one(jsonl: Write) -> None:
    with pytest.raises(DataError, match="at -1, as for a question without an answer, but it is"):
        load(jsonl([row(start=-1)]), "squad_v2")


def test_offsets_may_be_whole_floats(jsonl: Write) -> None:
    path = jsonl([row(answers={"text": ["cat"], "answer_start": [4.0]})])
    expected = {"text": ["cat"], "answer_start": [4]}
    assert load(path).validation[""].dataset["answers"][:] == [expected]
    with pytest.raises(DataError, match="malformed answers"):
        load(jsonl([row(answers={"text": ["cat"], "answer_start": [4.5]})]))


@pytest.mark.parametrize("indent", [None, 1])
def test_the_nested_files_of_squad(tmp_path: Path, indent: int | None) -> None:
    questions = [
        {"id": "1", "question": "Who?", "answers": [{"text": "cat", "answer_start": 4}]},
        {"id": "2", "question": "Why?", "answers": [], "is_impossible": True},
    ]
    paragraphs = [{"context": CONTEXT, "qas": questions}]
    document = {"version": "v2.0", "data": [{"title": "Cats", "paragraphs": paragraphs}]}
    path = tmp_path / "dev.json"
    path.write_text(json.dumps(document, indent=indent))
    assert load(str(path), "squad_v2").validation[""].dataset[:] == {
        "question": ["Who?", "Why?"],
        "context": [CONTEXT] * 2,
        "answers": [{"text": ["cat"], "answer_start": [4]}, {"text": [], "answer_start": []}],
    }


def test_all_kinds_of_problems_are_reported_at_once(jsonl: Write) -> None:
    bad = [row(question=""), row(answers="cat"), row("cat", 5)]
    with pytest.raises(DataError) as error:
        load(jsonl(bad))
    for kind in ("no usable text in 1 row", "malformed answers in 1 row", "not at its offset in 1"):
        assert kind in error.value.message
