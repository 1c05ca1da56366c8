"""A run from plan to folder: steps, logs, seeds, precision, and errors."""

import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from dcft_cli.adapter_file.read import read_adapter
from dcft_cli.errors import RecipeError, RunError, TrainingError
from dcft_cli.recipe import load_recipe
from dcft_cli.runs.evaluate import evaluate
from tests.families import config_of, save_base, tiny_tokenizer
from tests.jobs import Job, Watcher, largest_difference, recipe, tensors, train
from tests.samples import rows_of, write_rows


@pytest.fixture(scope="module")
def job(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    return train(recipe("qnli", folder, base), folder / "run")


def test_a_run_folder(job: Job) -> None:
    assert {file.name for file in job.folder.iterdir()} == {
        "adapter.safetensors",
        "recipe.yaml",
        "metrics.json",
        "log.jsonl",
        "tokenizer.json",
        "tokenizer_config.json",
        "checkpoints",
    }
    text = "the film was not bad"
    original = AutoTokenizer.from_pretrained(job.plan.recipe.model.name)
    assert AutoTokenizer.from_pretrained(job.folder)(text) == original(text)
    resolved = load_recipe(str(job.folder / "recipe.yaml")).recipe
    assert resolved.training.output == str(job.folder)
    assert resolved.task.labels == ["entailment", "not_entailment"]
    metrics = json.loads((job.folder / "metrics.json").read_text())
    assert metrics["train_loss"] == job.watcher.losses[-1].loss
    assert metrics["seconds"] > 0
    assert metrics["seed"] == 6
    assert (metrics["device"], metrics["precision"]) == ("CPU, 1 thread", "float32")


def test_the_log_contains_every_loss_and_score(job: Job) -> None:
    lines = [json.loads(line) for line in (job.folder / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1, 2, 3, 3, 4, 5, 6, 6]
    losses = [line for line in lines if "loss" in line]
    assert [line["loss"] for line in losses] == [p.loss for p in job.watcher.losses]
    rates = [0.01 * (6 - step) / 6 for step in range(6)]
    assert [line["learning_rate"] for line in losses] == pytest.approx(rates)
    assert all(line["grad_norm"] > 0 and line["tokens_per_second"] > 0 for line in losses)
    scores = [(line["step"], line["scores"]) for line in lines[1:] if "scores" in line]
    assert scores == [(step, found) for step, found, _ in job.watcher.scores]


def test_the_reporter_receives_every_step_and_batch(job: Job) -> None:
    assert [p.step for p in job.watcher.steps] == [1, 2, 3, 4, 5, 6]
    assert {p.total_steps for p in job.watcher.steps} == {6}
    assert job.watcher.steps[-1].seconds_left == 0
    assert job.watcher.steps[-1].epoch == 2.0
    # 12 rows, 16 at a time, scored twice, and by the best checkpoint once more for the report.
    again = job.metrics["best_step"] != 6
    assert job.watcher.batches == [(1, 1)] * (2 + again)


@pytest.mark.parametrize(
    ("epochs", "batch", "parts", "per_epoch", "total"),
    [(2, 8, 1, 3, 6), (1.5, 4, 2, 3, 5), (1, 21, 1, 1, 1), (0.1, 4, 1, 6, 1), (2, 4, 4, 2, 4)],
)
def test_the_number_of_steps_is_the_planned_one(
    base: Path, tmp_path: Path, epochs: float, batch: int, parts: int, per_epoch: int, total: int
) -> None:
    """21 rows: no batch size here but one divides them."""
    settings = (
        "training.max_steps=null",
        "training.eval_steps=null",
        f"training.epochs={epochs}",
        f"training.batch_size={batch}",
        f"training.gradient_accumulation_steps={parts}",
    )
    job = train(recipe("sst2", tmp_path, base, *settings, train=21), tmp_path / "run")
    assert (job.plan.steps_per_epoch, job.plan.total_steps) == (per_epoch, total)
    assert [p.step for p in job.watcher.steps] == list(range(1, total + 1))
    scored = sorted({*range(per_epoch, total + 1, per_epoch), total})
    assert [step for step, _, _ in job.watcher.scores] == scored


def test_a_run_depends_only_on_its_seed(base: Path, tmp_path: Path) -> None:
    def trained(name: str, seed: int) -> Path:
        loaded = recipe("sst2", tmp_path, base, f"training.seed={seed}", "training.max_steps=4")
        torch.rand(seed)  # an earlier draw changes nothing
        return train(loaded, tmp_path / name).folder

    one, again, other = trained("one", 1), trained("again", 1), trained("other", 2)
    assert largest_difference(one, again) == 0
    assert largest_difference(one, other) > 0.01


@pytest.mark.parametrize(
    ("eval_steps", "message"),
    [(1, r"diverged|not finite"), (3, r"diverged: loss .* at step [123]\.")],
)
def test_divergence_is_an_error(base: Path, tmp_path: Path, eval_steps: int, message: str) -> None:
    settings = ("training.learning_rate=1e30", f"training.eval_steps={eval_steps}")
    with pytest.raises(TrainingError, match=message) as caught:
        train(recipe("sst2", tmp_path, base, *settings), tmp_path / "run")
    assert caught.value.exit_code == 1
    assert "training.learning_rate" in caught.value.hint
    assert not (tmp_path / "run" / "adapter.safetensors").exists()


@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.parametrize(
    "setting", ["model.dtype=bfloat16", "training.precision=bfloat16", "training.precision=auto"]
)
def test_precision_on_the_cpu(
    base: Path, tmp_path: Path, setting: str, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    settings = (setting, f"training.device={device}", "training.max_steps=3")
    job = train(recipe("sst2", tmp_path, base, *settings), tmp_path / "run")
    half = "bfloat16" in setting
    assert job.metrics["precision"] == ("bfloat16" if half else "float32")
    types = {True: set(), False: set()}
    for parameter in job.model.parameters():
        types[parameter.requires_grad].add(parameter.dtype)
    frozen = torch.bfloat16 if setting.startswith("model") else torch.float32
    assert types == {True: {torch.float32}, False: {frozen}}
    assert all(t.dtype == torch.float32 for t in tensors(job.folder).values())
    assert all(math.isfinite(p.loss or math.nan) for p in job.watcher.losses)
    assert evaluate(str(job.folder), (), Watcher()).metrics == job.metrics["metrics"]


def test_gradient_checkpointing_changes_nothing_else(tmp_path: Path) -> None:
    base = save_base(tmp_path / "base", hidden_dropout_prob=0, attention_probs_dropout_prob=0)
    jobs = [
        train(
            recipe("sst2", tmp_path, base, f"training.gradient_checkpointing={on}"), tmp_path / on
        )
        for on in ("true", "false")
    ]
    on, off = (
        {getattr(m, "gradient_checkpointing", 0) for m in job.model.modules()} for job in jobs
    )
    assert (True in on, True in off) == (True, False)
    last = [job.folder / "checkpoints" / "checkpoint-6" for job in jobs]
    assert largest_difference(*last) < 1e-5


def test_labels_found_in_the_data(base: Path, tmp_path: Path) -> None:
    names = ["awful", "good", "tall"]
    rows = [{**row, "label": names[row["label"]]} for row in rows_of("mnli", 24)]
    own = (
        "task.name=null",
        "task.type=classification",
        "data.text=[premise, hypothesis]",
        f"data.train={write_rows(tmp_path / 'own.jsonl', rows)}",
        f"data.validation={tmp_path / 'own.jsonl'}",
    )
    job = train(recipe("mnli", tmp_path, base, *own), tmp_path / "run")
    assert list(job.metrics["metrics"]) == ["accuracy", "macro_f1"]
    assert job.metrics["task"] == "classification"
    assert read_adapter(job.folder / "adapter.safetensors").model["labels"] == names
    rows = [row for row in rows if row["label"] != "awful"]  # a set that lacks a label
    other = write_rows(tmp_path / "other.jsonl", rows)
    result = evaluate(str(job.folder), [f"data.validation={other}"], Watcher())
    assert result.rows == {"validation": 16}
    assert result.data["validation"].endswith("other.jsonl")


def test_an_earlier_run_is_replaced_on_request_only(base: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(recipe("sst2", tmp_path, base, "training.max_steps=3"), run)
    before = (run / "adapter.safetensors").read_bytes()
    (run / "notes.txt").write_text("mine")
    other = recipe("sst2", tmp_path, base, "training.max_steps=2", "training.seed=1")
    with pytest.raises(RunError, match="contains a run already"):
        train(other, run)
    assert (run / "adapter.safetensors").read_bytes() == before
    train(other, run, overwrite=True)
    assert (run / "adapter.safetensors").read_bytes() != before
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["checkpoint-2"]
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps == [0, 1, 2, 2]
    assert (run / "notes.txt").read_text() == "mine"


def test_a_run_with_relative_paths_works_from_any_folder(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("base").symlink_to(base)
    names = ("model.name=base", "data.train=train.jsonl", "data.validation={here: dev.jsonl}")
    write_rows(Path("train.jsonl"), rows_of("rte", 12))
    write_rows(Path("dev.jsonl"), rows_of("rte", 8))
    job = train(recipe("rte", tmp_path, base, *names, "training.max_steps=2"), Path("run"))
    monkeypatch.chdir("/")
    result = evaluate(str(tmp_path / "run"), (), Watcher())
    assert result.metrics == job.metrics["metrics"]
    assert result.rows == {"here": 8}


def test_differences_from_the_plan_are_noted(base: Path, tmp_path: Path) -> None:
    """Without weights, the plan assumes that the checkpoint has a pooler and no head."""
    head = AutoModelForSequenceClassification.from_config(config_of("bert"))
    bare = AutoModelForMaskedLM.from_config(config_of("bert"))
    for name, model in (("head", head), ("bare", bare)):
        model.save_pretrained(tmp_path / name)
        tiny_tokenizer().save_pretrained(tmp_path / name)
    one_step = "training.max_steps=1"
    bases = {"plain": base, "head": tmp_path / "head", "bare": tmp_path / "bare"}
    jobs = {
        name: train(recipe("rte", tmp_path, path, one_step), tmp_path / f"run-{name}")
        for name, path in bases.items()
    }
    assert {job.plan.adapter.head_parameters for job in jobs.values()} == {34}
    counts = {name: job.metrics["head_parameters"] for name, job in jobs.items()}
    assert counts == {"plain": 34, "head": 34, "bare": 34 + 16 * 17}
    assert jobs["plain"].watcher.notes == []
    assert "whose classes have no names: a new last layer" in jobs["head"].watcher.notes[0]
    assert "bert.pooler.dense, classifier" in jobs["bare"].watcher.notes[0]


def test_early_stopping_needs_validation_data(base: Path, tmp_path: Path) -> None:
    nothing = ("data.validation=null", "data.hub=null", "training.early_stopping_patience=2")
    with pytest.raises(RecipeError, match="needs validation data"):
        train(recipe("sst2", tmp_path, base, *nothing), tmp_path / "run")


def test_dropout_that_a_model_does_not_have_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"0.1 has no effect: BertForQuestionAnswering has no"):
        train(recipe("squad_v1", tmp_path, base, "model.classifier_dropout=0.1"), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    train(recipe("squad_v1", tmp_path, base, "model.classifier_dropout=0"), tmp_path / "run")
