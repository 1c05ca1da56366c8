"""`dcft_cli.load`: what a Python program predicts with."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import dcft_cli
from dcft_cli import Predictor
from dcft_cli.errors import AdapterFileError, DataError, ModelError, RunError
from dcft_cli.runs.adapted import load_adapted
from dcft_cli.runs.evaluate import evaluate
from dcft_cli.tasks.decision import Decision
from tests.families import SPECIAL, WORDS, save_base
from tests.jobs import Watcher, recipe, train
from tests.prediction.adapters import close
from tests.samples import rows_of, write_rows

RunOf = Callable[[str], Path]
PredictorOf = Callable[[str], Predictor]

TASKS = ["sst2", "rte", "stsb", "squad_v2", "token_classification", "multi_label"]
TEXTS = ["the film was good", "bad", "the plot of the movie was not great"]


@pytest.fixture(scope="module")
def predictor_of(run_of: RunOf) -> PredictorOf:
    loaded: dict[str, Predictor] = {}
    return lambda task: loaded.setdefault(task, dcft_cli.load(run_of(task), batch_size=4))


@pytest.mark.parametrize("task", TASKS)
def test_predictions_are_those_that_dcft_eval_scores(
    task: str, run_of: RunOf, predictor_of: PredictorOf, tmp_path: Path
) -> None:
    """The same rows one by one, in batches, and as `dcft eval --predictions` writes them."""
    rows = rows_of(task, 11, seed=3)
    data = write_rows(tmp_path / "rows.jsonl", rows)
    batched = predictor_of(task)(rows)
    single = [predictor_of(task)(row) for row in rows]
    file = tmp_path / "eval.jsonl"
    evaluate(str(run_of(task)), [f"data.validation={data}"], Watcher(), predictions=file)
    scored = list(map(json.loads, file.read_text().splitlines()))
    for row, one, other, third in zip(rows, batched, single, scored, strict=True):
        assert set(one) <= set(predictor_of(task).task.predicted_columns)
        assert list(third) == list(dict.fromkeys([*row, "label", *one]))
        assert close(one, other)
        assert close(one, {name: third[name] for name in one})


def test_probabilities_are_those_of_the_plain_model(
    run_of: RunOf, predictor_of: PredictorOf
) -> None:
    texts = [row["sentence"] for row in rows_of("sst2", 9)]
    adapted = load_adapted(str(run_of("sst2")), ["training.acceleration=off"], data=False)
    encoded = adapted.preparation.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = adapted.model.eval()(**encoded).logits.softmax(-1)
    found = [list(row["probabilities"].values()) for row in predictor_of("sst2")(texts)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_one_row_or_many(predictor_of: PredictorOf) -> None:
    predictor = predictor_of("sst2")
    assert predictor.labels == ("negative", "positive")
    first, *_ = found = predictor(TEXTS)
    assert len(found) == 3 and predictor(iter(TEXTS)) == found
    assert predictor([]) == []
    assert close(predictor(TEXTS[0]), first)
    assert close(predictor({"sentence": TEXTS[0], "id": 7}), first)
    assert close(predictor(tuple(TEXTS)), found)


def test_pairs(predictor_of: PredictorOf) -> None:
    predictor = predictor_of("rte")
    one = predictor((TEXTS[0], TEXTS[1]))
    mapping = {"sentence1": TEXTS[0], "sentence2": TEXTS[1]}
    for row in predictor([(TEXTS[0], TEXTS[1]), [TEXTS[0], TEXTS[1]], mapping]):
        assert close(row, one)
    assert predictor((TEXTS[1], TEXTS[0])) != one


def test_words_and_questions(predictor_of: PredictorOf) -> None:
    tagger = predictor_of("token_classification")
    assert set(tagger.labels) == {"B-PLACE", "B-THING", "I-THING", "O"}
    words, text = tagger([["the", "cat"], "the  cat"])
    assert words["prediction"] == text["prediction"] and len(text["prediction"]) == 2
    marks, listed, nothing = tagger(["[1]", "['the', 'cat']", [" "]])
    assert listed == words
    assert [len(one["prediction"]) for one in (marks, nothing)] == [1, 1]
    assert tagger([[" "]]) == [nothing]  # no row has a token
    reader = predictor_of("squad_v2")
    assert reader.labels == ()
    question, context = "where does he lives ?", "he lives in paris ."
    assert reader((question, context)) == reader({"question": question, "context": context})


@pytest.mark.parametrize(
    ("task", "inputs", "message"),
    [
        ("sst2", [" "], "row 1: `sentence` is empty"),
        ("sst2", ["a", None], "row 2: `sentence` is missing"),
        ("sst2", [("a", "b")], "not a text"),
        ("sst2", {"text": "a"}, "has no column `sentence`. It has: text"),
        ("sst2", {}, "row 1: `sentence` is missing"),
        ("sst2", [{"sentence": "a"}, {"text": "a"}], "row 2: `sentence` is missing"),
        ("rte", "a", "row 1: is 'a', not a pair"),
        ("rte", [("a", "b", "c")], "not a pair"),
        ("rte", [("a", None)], "`sentence2` is missing"),
        ("token_classification", [["a", 2]], "word 2 is 2, not a text"),
    ],
)
def test_inputs_that_cannot_be_predicted(
    task: str, inputs: Any, message: str, predictor_of: PredictorOf
) -> None:
    with pytest.raises(DataError, match=message) as error:
        predictor_of(task)(inputs)
    assert error.value.message.startswith("the input") and error.value.hint


def test_data_frames(predictor_of: PredictorOf) -> None:
    frame = pd.DataFrame({"id": [1, 2], "sentence": TEXTS[:2]})
    expected = predictor_of("sst2")(TEXTS[:2])
    assert predictor_of("sst2")(frame["sentence"]) == expected
    assert predictor_of("sst2")(frame.to_dict("records")) == expected
    with pytest.raises(DataError, match="data frame, not rows"):
        predictor_of("sst2")(frame)


@pytest.mark.parametrize("value", [3, None])
@pytest.mark.parametrize("task", ["sst2", "rte", "token_classification"])
def test_a_value_that_is_no_row(predictor_of: PredictorOf, task: str, value: Any) -> None:
    with pytest.raises(DataError, match=f"The inputs are {value}, not rows"):
        predictor_of(task)(value)
    with pytest.raises(DataError, match="the input: no"):
        predictor_of(task)([value])


def test_threads_take_turns(predictor_of: PredictorOf) -> None:
    predictor = predictor_of("sst2")
    inputs = [TEXTS[: n % 4] for n in range(24)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(predictor, inputs))
    assert all(close(one, predictor(given)) for one, given in zip(found, inputs, strict=True))


def test_where_an_adapter_may_be(
    run_of: RunOf, predictor_of: PredictorOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, expected = run_of("sst2"), predictor_of("sst2")(TEXTS)
    shared = tmp_path / "shared.safetensors"
    package = tmp_path / "adapter_of_tickets"
    (package / "run").mkdir(parents=True)
    for path in (shared, package / "run" / "adapter.safetensors"):
        path.write_bytes((run / "adapter.safetensors").read_bytes())
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    for source in (run / "adapter.safetensors", shared, "package://adapter_of_tickets/run"):
        assert close(dcft_cli.load(source, device="cpu")(TEXTS), expected)
    with pytest.raises(RunError, match="does not exist"):
        dcft_cli.load(tmp_path / "nowhere")


def test_another_base_is_refused(run_of: RunOf, tmp_path: Path) -> None:
    other = save_base(tmp_path / "other", initializer_range=0.1)
    with pytest.raises(AdapterFileError, match="trained on other base weights"):
        dcft_cli.load(run_of("sst2"), [f"model.name={other}"])


def test_the_decision_of_the_adapter_is_used(run_of: RunOf) -> None:
    predictor = dcft_cli.load(run_of("sst2"))
    before = predictor(TEXTS[0])
    predictor.task.decision = Decision(temperature=1e4)
    assert predictor(TEXTS[0])["probability"] == pytest.approx(0.5, abs=1e-3)
    assert predictor(TEXTS[0])["prediction"] == before["prediction"]


def test_the_package_lists_its_names() -> None:
    assert {"load", "Predictor", "inject", "__version__"} <= set(dir(dcft_cli))
    for name in dir(dcft_cli):
        getattr(dcft_cli, name)


def test_a_program_ends_without_a_word(run_of: RunOf) -> None:
    """Nothing is left to be cleaned up by an interpreter that is half gone."""
    code = "import sys, dcft_cli; p = dcft_cli.load(sys.argv[1]); print(p('a')['prediction'])"
    command = [sys.executable, "-W", "error", "-c", code, str(run_of("sst2"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout in ("negative\n", "positive\n") and done.stderr == ""


def test_a_token_without_an_embedding(tmp_path: Path) -> None:
    trimmed = save_base(tmp_path / "trimmed", vocab_size=len(SPECIAL) + len(WORDS))
    run = train(recipe("sst2", tmp_path, trimmed), tmp_path / "run").folder
    with pytest.raises(ModelError, match="is in the data"):
        dcft_cli.load(run)("the film ~")
