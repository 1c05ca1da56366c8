"""Held-out rows, dropped rows and the order of labels, from the run folder to its scores."""

import json
import shutil
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset, Features, Value

from dcft_cli import load
from dcft_cli.adapter_file.read import read_adapter
from dcft_cli.errors import DataError
from dcft_cli.recipe import load_recipe
from dcft_cli.runs.evaluate import evaluate
from tests.jobs import Job, Watcher, train

RECIPE = """\
model: {name: BASE}
task: {type: classification}
data: {train: DATA, text: body, label: topic, holdout: {fraction: 0.25}}
training: {max_steps: 4, batch_size: 8, device: cpu, logging_steps: 1}
"""


@pytest.fixture(scope="module")
def job(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    rows = [f'"{thing} {n}, a cat",{thing}' for n in range(16) for thing in ("film", "plot")]
    (folder / "train.csv").write_text("\n".join(["body,topic", *rows[:9], ",", *rows[9:]]))
    recipe = RECIPE.replace("BASE", str(base)).replace("DATA", str(folder / "train.csv"))
    (folder / "own.yaml").write_text(recipe)
    return train(load_recipe(str(folder / "own.yaml")), folder / "run")


def test_the_run_folder_has_the_held_out_rows(job: Job) -> None:
    lines = (job.folder / "holdout.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    assert [sum(row["topic"] == topic for row in rows) for topic in ("film", "plot")] == [4, 4]
    assert all(row["body"].startswith(row["topic"]) for row in rows)
    assert job.metrics["validation_rows"] == {"validation": 8}
    path = job.folder / "holdout.jsonl"
    scored = evaluate(str(job.folder), [f"data.validation={path}"], Watcher())
    assert scored.metrics == pytest.approx(job.metrics["metrics"])
    assert scored.data == {"validation": str(path)}


def test_a_run_is_scored_on_the_rows_that_it_held_out(job: Job, tmp_path: Path) -> None:
    """Not on the part that the changed file would have now, which has rows it was trained on."""
    run = Path(shutil.copytree(job.folder, tmp_path / "run"))
    (tmp_path / "less.csv").write_text("body,topic\na film,film\na plot,plot\n")
    recipe = (run / "recipe.yaml").read_text("utf-8")
    train_file = str(job.plan.recipe.data.train)
    (run / "recipe.yaml").write_text(recipe.replace(train_file, str(tmp_path / "less.csv")))
    scored = evaluate(str(run), (), Watcher())
    assert scored.rows == {"validation": 8}
    assert scored.metrics == job.metrics["metrics"]
    assert load(run).preparation.recipe.data.holdout, "predictions read files as the recipe says"
    (run / "holdout.jsonl").unlink()
    with pytest.raises(DataError):
        evaluate(str(run), (), Watcher())


def test_a_run_without_a_holdout_removes_the_file_of_an_earlier_run(
    job: Job, tmp_path: Path
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "holdout.jsonl").touch()
    recipe = str(job.folder / "recipe.yaml")
    loaded = load_recipe(recipe, [f"data.validation={job.folder / 'holdout.jsonl'}"])
    again = train(loaded, tmp_path / "run", overwrite=True)
    assert not (again.folder / "holdout.jsonl").exists()


def test_dropped_rows_are_noted(job: Job, tmp_path: Path) -> None:
    source = job.plan.preparation.loaded.notes
    assert [note.partition(": ")[2] for note in source] == ["1 blank row dropped"]
    (tmp_path / "dev.csv").write_text("body,topic\nx,film\n,\ny,plot\n")
    watcher = Watcher()
    scored = evaluate(str(job.folder), [f"data.validation={tmp_path / 'dev.csv'}"], watcher)
    assert scored.rows == {"validation": 2}
    assert watcher.notes == [f"{tmp_path / 'dev.csv'}: 1 blank row dropped"]


@pytest.mark.parametrize("from_folder", [True, False])
def test_numbers_are_no_positions_among_labels_that_were_found(
    job: Job, tmp_path: Path, from_folder: bool
) -> None:
    source = job.folder
    if not from_folder:
        source = tmp_path / "shared.safetensors"
        source.write_bytes((job.folder / "adapter.safetensors").read_bytes())
    assert read_adapter(job.folder / "adapter.safetensors").model["labels"] == ["film", "plot"]
    named, numbered = tmp_path / "named.csv", tmp_path / "numbered.csv"
    named.write_text("body,topic\nfilm,film\nplot,plot\nplot,plot\n")
    numbered.write_text("body,topic\nfilm,1\nplot,0\nplot,0\n")
    expected = evaluate(str(source), [f"data.validation={named}"], Watcher()).metrics
    with pytest.raises(DataError, match="unknown label in 3 rows") as error:
        evaluate(str(source), [f"data.validation={numbered}"], Watcher())
    assert "Known labels: film, plot." in error.value.hint
    overrides = [f"data.validation={numbered}", "task.labels=[plot, film]"]
    assert evaluate(str(source), overrides, Watcher()).metrics == expected


@pytest.mark.parametrize("renamed", [False, True])
def test_held_out_rows_of_a_data_set_with_class_names(
    base: Path, tmp_path: Path, renamed: bool
) -> None:
    """Names sorted as texts, as `class_encode_column` leaves them: class 2 is called 10."""
    names = sorted(map(str, range(11)))
    rows = {"body": [f"number {n} of {n % 11}" for n in range(88)], "topic": [*range(11)] * 8}
    features = Features({"body": Value("string"), "topic": ClassLabel(names=names)})
    Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "train.parquet")
    recipe = RECIPE.replace("BASE", str(base)).replace("DATA", str(tmp_path / "train.parquet"))
    (tmp_path / "own.yaml").write_text(recipe)
    others = [f"task.labels=[{', '.join('abcdefghijk')}]"] if renamed else []
    job = train(load_recipe(str(tmp_path / "own.yaml"), others), tmp_path / "run")
    path = job.folder / "holdout.jsonl"
    written = [json.loads(line)["topic"] for line in path.read_text("utf-8").splitlines()]
    loaded = job.plan.preparation.loaded
    numbers = loaded.validation[""].dataset["label"][:]
    assert written == (numbers if renamed else [loaded.task.labels[n] for n in numbers])
    for given in ((), [f"data.validation={path}"]):
        scored = evaluate(str(job.folder), given, Watcher())
        assert scored.metrics == pytest.approx(job.metrics["metrics"])
