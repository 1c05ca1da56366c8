from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from dcft_cli.errors import DataError, RecipeError
from dcft_cli.recipe import DataSection, TaskSection
from dcft_cli.tasks import LoadedTask, load_task

Write = Callable[..., str]

CONTEXT = "The cat sat on the mat."


def row(text: str = "cat", start: int = 4, **others: Any) -> dict[str, Any]:
    answers = {"text": [text], "answer_start": [start]}
    return {"question": "Who sat?", "context": CONTEXT, "answers": answers, **others}


def load(validation: str, name: str = "squad_v1", **data: Any) -> LoadedTask:
    section = DataSection(validation=validation, max_length=64, document_stride=8, **data)
    return load_task(TaskSection(name=name), section, training=False)


def test_rows_are_prepared(jsonl: Write) -> None:
    dataset = load(jsonl([row(id="x", title="Cats"), row()])).validation[""].dataset
    assert dataset[:] == {
        "id": ["x", "2"],
        "question": ["Who sat?"] * 2,
        "context": [CONTEXT] * 2,
        "answers": [{"text": ["cat"], "answer_start": [4]}] * 2,
    }


def test_without_an_id_column_rows_are_numbered(jsonl: Write) -> None:
    assert load(jsonl([row(), row()])).validation[""].dataset["id"][:] == ["1", "2"]


def test_an_answer_that_is_not_at_its_offset(jsonl: Write) -> None:
    rows = [row(id="a"), row("cat", 5, id="b"), row("mat.", 99, id="c"), row("cat", -3, id="d")]
    with pytest.raises(DataError) as error:
        load(jsonl(rows))
    assert error.value.message.splitlines()[0].endswith("not at its offset in 3 rows:")
    assert error.value.message.splitlines()[1:] == [
        "  row 2 (line 2): question b: at character 5 stands 'at ', not 'cat'",
        "  row 3 (line 3): question c: at character 99 stands '', not 'mat.'",
        "  row 4 (line 4): question d: at character -3 stands '', not 'cat'",
    ]


def test_every_reference_is_checked(jsonl: Write) -> None:
    answers = {"text": ["cat", "mat"], "answer_start": [4, 20]}
    with pytest.raises(DataError, match=r"at character 20 stands 'at\.', not 'mat'"):
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


def test_an_empty_answer_text_is_no_answer(jsonl: Write) -> None:
    with pytest.raises(DataError, match="question 1: the answer is empty"):
        load(jsonl([row("", 0)]))


def test_unanswerable_questions_must_be_allowed(jsonl: Write) -> None:
    path = jsonl([row(), row(answers={"text": [], "answer_start": []})])
    with pytest.raises(DataError, match=r"without an answer in 1 row:\n  row 2") as error:
        load(path)
    assert "task.unanswerable=true" in error.value.hint
    assert len(load(path, "squad_v2").validation[""].dataset) == 2


def test_ids_are_unique(jsonl: Write) -> None:
    with pytest.raises(DataError, match=r"more than once in 2 rows:\n  row 1 .*: `id` is x"):
        load(jsonl([row(id="x"), row(id="y"), row(id="x")]))


def test_a_csv_file_cannot_hold_answers(jsonl: Write, tmp_path: Any) -> None:
    path = tmp_path / "dev.csv"
    path.write_text("question,context,answers\nwho,the cat,cat\n")
    with pytest.raises(DataError) as error:
        load(str(path))
    assert "csv or tsv file cannot" in error.value.hint


def test_own_columns(jsonl: Write) -> None:
    own = {"q": "Who?", "passage": CONTEXT, "gold": {"text": ["cat"], "answer_start": [4]}}
    task = TaskSection(type="question_answering")
    data = DataSection(validation=jsonl([own]), text=["q", "passage"], label="gold")
    loaded = load_task(task, data, training=False)
    assert loaded.validation[""].dataset["context"][:] == [CONTEXT]
    with pytest.raises(RecipeError, match=r"data\.text names one column"):
        load_task(task, data.model_copy(update={"text": ["q"]}), training=False)


def test_the_task_describes_its_model(jsonl: Write) -> None:
    loaded = load(jsonl([row()]))
    assert loaded.task.kind == "question_answering"
    assert loaded.task.auto_class == "AutoModelForQuestionAnswering"
    assert loaded.task.model_settings == {}
    assert loaded.main_metric == "f1"
    assert loaded.greater_is_better


def test_answers_of_v2_obey_the_threshold(jsonl: Write, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [row(id="a"), row(id="b", answers={"text": [], "answer_start": []})]
    loaded = load(jsonl(rows), "squad_v2")
    evaluation = loaded.task.evaluation_set("", loaded.validation[""].dataset, tokenizer)
    assert evaluation.decode is not None
    shape = (2, evaluation.features["length"][0])
    start, end = np.zeros(shape), np.zeros(shape)
    start[1, 0] = 5  # the features keep the order of rows of one length
    answers = evaluation.decode((start, end))
    assert list(answers) == ["a", "b"]
    assert answers["b"].no_answer_score == 5.0
    assert answers["b"].given(0.0) == ""
    scores = evaluation.score((start, end), None)
    assert scores["no_answer_exact_match"] == 100.0
    assert scores["best_f1"] >= scores["f1"]
