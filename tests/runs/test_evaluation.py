"""Scoring a run, a checkpoint, or an adapter file without its run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dcft_cli import DCFTConfig, inject, load, save_adapter
from dcft_cli.adapter_file.read import read_adapter
from dcft_cli.errors import AdapterFileError, DataError, RecipeError, UserError
from dcft_cli.runs.evaluate import evaluate
from tests.families import save_base, tiny_model
from tests.jobs import Job, Watcher, recipe, train
from tests.samples import rows_of, write_rows

LOCAL = "data.hub=null"
RunOf = Callable[[str], Path]


@pytest.fixture(scope="module")
def job(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    loaded = recipe("stsb", folder, base, LOCAL, "training.learning_rate=0.1")
    return train(loaded, folder / "run", scores=[0.1, 0.2, 0.3, 0.4])


@pytest.fixture
def shared_file(job: Job, tmp_path: Path) -> Path:
    """The adapter without its run folder."""
    return Path(shutil.copy(job.folder / "adapter.safetensors", tmp_path / "passed-on.safetensors"))


def score(source: Path, *overrides: str) -> dict[str, float]:
    return evaluate(str(source), overrides, Watcher()).metrics


def test_result(job: Job) -> None:
    watcher = Watcher()
    result = evaluate(str(job.folder), ["training.eval_batch_size=5"], watcher)
    data = str(job.plan.recipe.data.validation)
    assert json.loads(json.dumps(result.to_json())) == {
        "task": "stsb",
        "metrics": result.metrics,
        "main_metric": "pearson",
        "adapter": str(job.folder / "adapter.safetensors"),
        "base": job.plan.recipe.model.name,
        "rows": {"validation": 12},
        "data": {"validation": data},
        "decision": {},
        "chosen": [],
        "reports": {},
        "device": "CPU, 1 thread",
        "seconds": round(result.seconds, 3),
    }
    assert result.metrics.keys() == {"pearson", "spearman"}
    assert watcher.batches == [(1, 3), (2, 3), (3, 3)]
    assert watcher.scores == [(0, result.metrics, True)]


def test_sources(job: Job, shared_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Folder, file and best checkpoint are one adapter; the other checkpoint is another."""
    checkpoints = job.folder / "checkpoints"
    expected = score(job.folder)
    assert score(job.folder / "adapter.safetensors") == expected
    assert score(checkpoints / "checkpoint-6") == expected
    assert score(checkpoints / "checkpoint-3") != expected
    assert score(checkpoints / "checkpoint-6" / "adapter.safetensors") == expected
    data = f"data.validation={job.plan.recipe.data.validation}"
    assert score(shared_file, data, "training.device=cpu") == expected
    monkeypatch.chdir(checkpoints / "checkpoint-6")
    assert score(Path("adapter.safetensors")) == expected


def test_scores_do_not_depend_on_the_batch_size(job: Job) -> None:
    expected = score(job.folder)
    assert score(job.folder, "training.eval_batch_size=1") == pytest.approx(expected, abs=1e-5)


def test_settings_that_count_in_training_only_are_refused(job: Job, shared_file: Path) -> None:
    idle = ["training.learning_rate=1", "adapter.kernel_size=4", "head.reuse=replace"]
    idle.append("training={device: cpu, epochs: 3}")
    idle.append("data.holdout={fraction: 0.5}")
    for source in (job.folder, shared_file):
        for use in (score, lambda source, *given: load(source, given)):
            with pytest.raises(RecipeError, match="used in training only") as error:
                use(source, "training.device=cpu", *idle)
            names = (
                "training.learning_rate, adapter.kernel_size, head.reuse, training, data.holdout: "
            )
            assert error.value.message.startswith(names)
            with pytest.raises(RecipeError, match="did you mean learning_rate"):
                use(source, "training.learning_rat=1")


def test_other_data(job: Job, tmp_path: Path) -> None:
    rows = rows_of("stsb", 7, seed=5)
    path = write_rows(tmp_path / "other.jsonl", rows)
    result = evaluate(str(job.folder), [f"data.validation={path}"], Watcher())
    assert result.rows == {"validation": 7}
    assert result.data == {"validation": path}
    sets = f"data.validation={{easy: {path}, hard: {path}}}"
    result = evaluate(str(job.folder), [sets, "task.metric=hard_spearman"], Watcher())
    assert result.rows == {"easy": 7, "hard": 7}
    assert result.main_metric == "hard_spearman"
    assert result.metrics["easy_pearson"] == result.metrics["hard_pearson"]


@pytest.mark.parametrize(
    ("task", "columns", "trained"),
    [("stsb", "sentence2", "pairs of texts"), ("sst2", "[sentence, idx]", "single texts")],
)
def test_pairs_are_no_single_texts(
    run_of: RunOf, tmp_path: Path, task: str, columns: str, trained: str
) -> None:
    rows = [{"sentence": "a", "idx": "b", **row} for row in rows_of(task, 4)]
    data = f"data.validation={write_rows(tmp_path / 'rows.jsonl', rows)}"
    shared = shutil.copy(run_of(task) / "adapter.safetensors", tmp_path / "passed-on.safetensors")
    for source in (run_of(task), shared):
        with pytest.raises(RecipeError, match=rf"was trained on {trained}"):
            evaluate(str(source), [data, f"data.text={columns}"], Watcher())


def test_an_adapter_file_contains_no_local_path(shared_file: Path) -> None:
    info = json.dumps(read_adapter(shared_file).info)
    assert "stsb" in info
    assert "/" not in info
    with pytest.raises(DataError, match="no validation data") as caught:
        score(shared_file)
    assert "data.validation=" in caught.value.hint


def test_base(job: Job, base: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(base, tmp_path / "moved")
    assert score(job.folder, f"model.name={moved}") == score(job.folder)
    other = save_base(tmp_path / "other", initializer_range=0.1)
    with pytest.raises(AdapterFileError, match="trained on other base weights"):
        score(job.folder, f"model.name={other}")


def test_a_merged_model_is_rejected_as_a_base(job: Job, base: Path, tmp_path: Path) -> None:
    """An adapter must not be added twice."""
    from dcft_cli.merging.merge import merge

    merged = merge(str(base), str(job.folder), str(tmp_path / "merged"))
    with pytest.raises(AdapterFileError, match="trained on other base weights"):
        score(job.folder, f"model.name={merged.folder}")


def test_an_adapter_saved_in_python_has_no_task(tmp_path: Path) -> None:
    path = save_adapter(inject(tiny_model(), DCFTConfig()), tmp_path)
    with pytest.raises(AdapterFileError, match="names no task"):
        score(path)


def test_invalid_overrides_are_errors(job: Job) -> None:
    with pytest.raises(UserError, match=r"data\.validatoin: unknown key"):
        score(job.folder, "data.validatoin=x.jsonl")
    with pytest.raises(UserError, match=r"no score named accuracy"):
        score(job.folder, "task.metric=accuracy")


def read(path: Path) -> list[dict[str, Any]]:
    return list(map(json.loads, path.read_text().splitlines()))


def test_predictions_have_all_columns_of_the_rows(job: Job, tmp_path: Path) -> None:
    rows = [
        {"id": f"n{number}", **row, "notes": {"by": [number]}}
        for number, row in enumerate(rows_of("stsb", 5, seed=5))
    ]
    data, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    evaluate(str(job.folder), [f"data.validation={data}"], Watcher(), predictions=out)
    found = read(out)
    assert [list(row) for row in found] == [[*rows[0], "prediction"]] * 5
    for row, expected in zip(found, rows, strict=True):
        assert row["label"] == pytest.approx(expected["label"])
        assert row | expected == {**row, "label": expected["label"]}
    sets = f"data.validation={{easy: {data}, hard: {data}}}"
    evaluate(str(job.folder), [sets], Watcher(), predictions=out)
    both = read(out)
    assert [row.pop("set") for row in both] == ["easy"] * 5 + ["hard"] * 5
    assert both == [*found, *found]


def test_a_label_column_of_another_name_is_kept(run_of: RunOf, tmp_path: Path) -> None:
    rows = [{"sentence": row["sentence"], "mood": row["label"]} for row in rows_of("sst2", 4)]
    data, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    given = [f"data.validation={data}", "data.label=mood"]
    evaluate(str(run_of("sst2")), given, Watcher(), predictions=out)
    for row, expected in zip(read(out), rows, strict=True):
        assert row | expected == row
        assert row["label"] == ("negative", "positive")[expected["mood"]]


@pytest.mark.parametrize(
    ("column", "settings"),
    [("probability", []), ("label", ["data.label=mood"]), ("set", [])],
)
def test_a_column_that_would_be_replaced_is_an_error(
    run_of: RunOf, tmp_path: Path, column: str, settings: list[str]
) -> None:
    rows = [{column: 1, **row, "mood": row["label"]} for row in rows_of("sst2", 4)]
    data, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "out.jsonl"
    given = f"data.validation={data}" if column != "set" else f"data.validation={{a: {data}}}"
    watcher = Watcher()
    with pytest.raises(DataError, match=rf"rows\.jsonl has a column `{column}`"):
        evaluate(str(run_of("sst2")), [given, *settings], watcher, predictions=out)
    assert not watcher.batches and not out.exists(), "before anything is scored"
    evaluate(str(run_of("sst2")), [given, *settings], watcher)


def test_rows_without_labels_can_only_be_predicted(job: Job, tmp_path: Path) -> None:
    rows = [{"sentence1": "a", "sentence2": "b", "lable": 1}]
    data = write_rows(tmp_path / "rows.jsonl", rows)
    with pytest.raises(DataError, match="has no column `label`, so there are no labels") as error:
        evaluate(str(job.folder), [f"data.validation={data}"], Watcher())
    assert "Did you mean lable?" in error.value.hint
    assert "dcft predict ADAPTER FILE" in error.value.hint
