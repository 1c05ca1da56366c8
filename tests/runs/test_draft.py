"""Recipes that `dcft init` writes: they load, train on the data, and say what was guessed."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from dcft_cli.errors import DataError, DCFTError, RecipeError, UserError
from dcft_cli.recipe import load_recipe
from dcft_cli.runs.draft import Draft, draft_recipe
from dcft_cli.runs.plan import plan_training
from tests.samples import Row, rows_of, text_rows, write_rows


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write_csv(name: str, rows: Sequence[Row], delimiter: str = ",") -> str:
    with Path(name).open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return name


def tickets(count: int = 60) -> list[Row]:
    names = ("bad", "good", "odd: name", "5e-4")
    return [
        {"id": n, "body": row["sentence"], "queue": names[n % 4]}
        for n, row in enumerate(text_rows("sst2", count))
    ]


def draft(address: str, base: Path, **settings: Any) -> Draft:
    """Write a recipe, and plan a training with it as from the command line."""
    drafted = draft_recipe(address, str(base), **settings)
    loaded = load_recipe(str(drafted.path))
    assert loaded.recipe == drafted.recipe
    assert plan_training(loaded).total_steps
    return drafted


def conll(rows: Sequence[Row]) -> str:
    lines = []
    for row in rows:
        lines += [f"{w} {t}" for w, t in zip(row["tokens"], row["ner_tags"], strict=True)]
        lines.append("")
    Path("words.conll").write_text("\n".join(lines), "utf-8")
    return "words.conll"


def parquet() -> str:
    features = Features(
        {"sentence": Value("string"), "label": ClassLabel(names=["negative", "positive"])}
    )
    Dataset.from_list(text_rows("sst2", 40), features=features).to_parquet("named.parquet")
    return "named.parquet"


@pytest.mark.parametrize(
    ("write", "task", "text", "label"),
    [
        (lambda: write_csv("t.csv", tickets()), "classification", ["body"], "queue"),
        (lambda: write_csv("t.tsv", tickets(), "\t"), "classification", ["body"], "queue"),
        (
            lambda: write_rows(Path("p.jsonl"), rows_of("mrpc", 40)),
            "classification",
            ["sentence1", "sentence2"],
            "label",
        ),
        (
            lambda: write_rows(Path("s.jsonl"), rows_of("stsb", 40)),
            "regression",
            ["sentence1", "sentence2"],
            "label",
        ),
        (
            lambda: write_rows(Path("l.jsonl"), rows_of("multi_label", 40)),
            "multi_label",
            ["text"],
            "labels",
        ),
        (
            lambda: write_rows(Path("w.jsonl"), rows_of("token_classification", 40)),
            "token_classification",
            ["tokens"],
            "ner_tags",
        ),
        (
            lambda: conll(rows_of("token_classification", 40)),
            "token_classification",
            ["tokens"],
            "ner_tags",
        ),
        (
            lambda: write_rows(Path("q.jsonl"), rows_of("squad_v2", 40)),
            "question_answering",
            ["question", "context"],
            "answers",
        ),
        (parquet, "classification", ["sentence"], "label"),
    ],
)
def test_every_kind_of_file(base: Path, write: Any, task: str, text: list[str], label: str) -> None:
    drafted = draft(write(), base, overrides=["data.document_stride=8"])
    recipe = drafted.recipe
    assert (recipe.task.type, recipe.data.text, recipe.data.label) == (task, text, label)
    assert recipe.data.holdout is not None
    assert Path("recipe.schema.json").is_file()


def test_the_recipe_explains_itself(base: Path) -> None:
    drafted = draft(write_csv("my tickets.csv", tickets()), base)
    assert drafted.path == Path("my tickets.yaml")
    assert drafted.path.read_text("utf-8") == (
        f"""\
# yaml-language-server: $schema=recipe.schema.json
# Written by dcft init for my tickets.csv.
# Every setting: dcft train --help-settings
# Run: dcft train 'my tickets.yaml'

model:
  name: {base}  # Hub name or local folder

task:
  type: classification          # 4 classes: 5e-4, bad, good, odd: name

data:
  train: my tickets.csv
  holdout:                      # for scoring; or, instead: validation: FILE
    fraction: 0.2
  text: body                    # {drafted.guess.reasons["text"]}
  label: queue                  # 4 different values
  max_length: 384               # longest input in tokens; longer ones are truncated

adapter:
  kernel_size: 8                # 4 and 2 train more parameters

training:
  learning_rate: 0.005          # the first setting to vary: half, double
  batch_size: 32
  # epochs: 5                   # unset: 3, or as many as make 150 steps
  # early_stopping_patience: 3  # evaluations without a better score
"""
    )


@pytest.mark.parametrize(("first", "offered"), [(0, True), (1, False)])
def test_names_for_numbered_classes_are_offered(base: Path, first: int, offered: bool) -> None:
    """Only where numbers count from 0, as `task.labels` takes them."""
    rows = [row | {"queue": n % 3 + first} for n, row in enumerate(tickets())]
    path = draft(write_csv("t.csv", rows), base).path
    assert ("\n  # labels: [NAME, NAME] " in path.read_text("utf-8")) is offered


def test_names_that_yaml_would_misread(base: Path) -> None:
    names = ("no", "5e-4", "a: b #c", 'x"\ny', "bell\a", "[é]", "- z", "long " * 30)
    rows = [
        {"the: text\nof it": f"{row['body']} {n}", "*label": names[n % len(names)]}
        for n, row in enumerate(tickets(80))
    ]
    write_rows(Path("odd #1.jsonl"), rows)
    drafted = draft("odd #1.jsonl", base)
    assert drafted.recipe.data.text == ["the: text\nof it"]
    assert drafted.recipe.data.label == "*label"
    assert max(map(len, drafted.path.read_text("utf-8").splitlines())) < 130


def test_settings_of_the_user_are_kept(base: Path) -> None:
    rows = [{"review": r["body"], "odd": "x y z" * 30, "label": n / 7}
            for n, r in enumerate(tickets())]  # fmt: skip
    drafted = draft(
        write_csv("t.csv", rows, "\t"),
        base,
        text=["review"],
        task="regression",
        validation=write_csv("dev.csv", rows[:9], "\t"),
        overrides=["data.format=tsv", "training.epochs=2", "adapter.targets=[Q, V]"],
        output="new/folder/r.yaml",
    )
    recipe = drafted.recipe
    assert (recipe.data.format, recipe.training.epochs) == ("tsv", 2)
    assert recipe.adapter.targets == ["Q", "V"]
    assert (recipe.data.validation, recipe.data.holdout) == ("dev.csv", None)
    text = Path("new/folder/r.yaml").read_text("utf-8")
    assert "  # epochs" not in text
    assert Path("new/folder/recipe.schema.json").is_file()


@pytest.mark.parametrize(("method", "rate"), [("lora", 1e-3), ("bitfit", 1e-3), ("head", 5e-3)])
def test_other_methods(base: Path, method: str, rate: float) -> None:
    drafted = draft(write_csv("t.csv", tickets()), base, overrides=[f"adapter.method={method}"])
    assert drafted.recipe.adapter.method == method
    assert drafted.recipe.training.learning_rate == rate
    assert "kernel_size" not in drafted.path.read_text("utf-8")


def test_the_share_that_is_held_out_follows_the_number_of_rows(base: Path) -> None:
    for count, share in ((60, 0.2), (600, 0.1)):
        drafted = draft_recipe(write_csv("t.csv", tickets(count)), str(base), overwrite=True)
        assert drafted.recipe.data.holdout is not None
        assert drafted.recipe.data.holdout.fraction == share


def test_nothing_is_written_after_an_error(base: Path, tmp_path: Path) -> None:
    rows = tickets()
    rows[3] = rows[3] | {"body": " "}
    files = {
        "bad.csv": rows,
        "unclear.csv": [row | {"other": n % 3} for n, row in enumerate(tickets())],
        "good.csv": tickets(),
    }
    for name, content in files.items():
        write_csv(name, content)
    mistakes: list[tuple[str, dict[str, Any], type[DCFTError]]] = [
        ("bad.csv", {}, DataError),
        ("unclear.csv", {}, DataError),
        ("nowhere.csv", {}, DataError),
        ("good.csv", {"overrides": ["training.epoch=3"]}, RecipeError),
        ("good.csv", {"overrides": ["task.name=rte"]}, RecipeError),
        ("good.csv", {"validation": "nowhere.csv"}, DataError),
        (
            "good.csv",
            {"validation": "good.csv", "overrides": ["data.holdout.fraction=0.5"]},
            RecipeError,
        ),
        ("good.csv", {"task": "regression"}, DataError),
    ]
    for name, settings, kind in mistakes:
        with pytest.raises(kind) as caught:
            draft_recipe(name, str(base), **settings)
        assert caught.value.hint
    assert {path.name for path in tmp_path.iterdir()} == files.keys()


def test_a_recipe_is_replaced_only_on_request(base: Path) -> None:
    address = write_csv("t.csv", tickets())
    Path("t.yaml").write_text("mine", "utf-8")
    with pytest.raises(UserError, match=r"t\.yaml exists") as caught:
        draft_recipe(address, str(base))
    assert "--overwrite" in caught.value.hint
    assert Path("t.yaml").read_text("utf-8") == "mine"
    draft(address, base, overwrite=True)
