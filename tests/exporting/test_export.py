"""Exports by the command's function: what is written, its proof, its script, and errors."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from peft import PeftModel
from torch import nn
from transformers import AutoModelForSequenceClassification

from dcft_cli import DCFTConfig, adapter_layers, inject, save_adapter
from dcft_cli.errors import AdapterFileError, ExportError, RunError, UserError
from dcft_cli.exporting import export as exporting
from dcft_cli.exporting.export import export
from dcft_cli.exporting.peft import write_peft
from dcft_cli.merging.proof import probes
from dcft_cli.models.loading import load_config, load_model
from dcft_cli.recipe import ModelSection
from dcft_cli.tasks.metrics import METRICS
from tests.exporting.scripts import script_with
from tests.families import save_base
from tests.jobs import Job, recipe, train
from tests.samples import rows_of
from tests.small import perturb

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning")
STRONG = ("training.learning_rate=0.05", "adapter.scale=8", "adapter.kernel_size=4")


def trained(task: str, base: Path, folder: Path, *more: str) -> Job:
    return train(recipe(task, folder, base, *STRONG, *more), folder / "run")


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base whose texts differ by more than rounding."""
    return save_base(tmp_path_factory.mktemp("base"), initializer_range=0.3)


@pytest.fixture(scope="module")
def job(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    return trained("stsb", base, tmp_path_factory.mktemp("job"))


def run_script(folder: Path, monkeypatch: pytest.MonkeyPatch, **values: Any) -> dict[str, Any]:
    """Run the script of an export in its folder; return its variables."""
    monkeypatch.chdir(folder)
    variables: dict[str, Any] = {}
    exec(script_with(folder, **values), variables)
    return variables


def test_a_peft_folder(job: Job, base: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "peft"
    result = export(str(job.folder), str(out), to="peft")
    files = {file.name: file.stat().st_size for file in out.iterdir()}
    assert files.keys() == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert result.difference <= 1e-5
    assert (result.folder, result.layers, result.ranks) == (out, 12, (4, 4))
    assert result.bytes == sum(files.values())
    assert len({file.stat().st_mode for file in out.iterdir()}) == 1
    config = json.loads((out / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == result.local_base == str(base)
    assert (config["task_type"], config["r"], config["lora_alpha"]) == ("SEQ_CLS", 4, 4)
    assert config["modules_to_save"] == ["classifier", "score"]
    assert [path.name for path in out.parent.iterdir()] == [out.name]


@pytest.mark.parametrize("to", ["peft", "onnx"])
def test_a_script_in_another_folder_scores_the_same_without_dcft(
    to: exporting.Format, job: Job, tmp_path: Path
) -> None:
    result = export(str(job.folder), str(tmp_path / "out"), to=to)
    assert result.difference <= 1e-5
    rows = rows_of("stsb", 12, seed=1)  # those that the run was scored on
    texts = {
        "firsts": [row["sentence1"] for row in rows],
        "seconds": [row["sentence2"] for row in rows],
    }
    script = script_with(result.folder, folder=str(result.folder), **texts)
    script += "\nimport json, sys\nassert 'dcft_cli' not in sys.modules\n"
    script += f"assert ('peft' in sys.modules) == {to == 'peft'}\n"
    script += "print(json.dumps(logits[:, 0].tolist()))\n"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    *printed, numbers = done.stdout.splitlines()
    assert len(printed) == len(rows)
    labels = np.array([row["label"] for row in rows])
    pearson = METRICS["pearson"](np.array(json.loads(numbers)), labels)
    assert pearson == pytest.approx(job.metrics["metrics"]["pearson"], abs=1e-5)


def test_scripts_of_other_tasks_predict_what_the_run_was_scored_on(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sst = trained("sst2", base, tmp_path / "sst2", "training.max_steps=20")
    export(str(sst.folder), str(tmp_path / "sst2-peft"), to="peft")
    rows = rows_of("sst2", 12, seed=1)
    capsys.readouterr()
    run_script(tmp_path / "sst2-peft", monkeypatch, texts=[row["sentence"] for row in rows])
    printed = [line.split(" ")[0] for line in capsys.readouterr().out.splitlines()]
    right = [
        name == ("negative", "positive")[row["label"]]
        for name, row in zip(printed, rows, strict=True)
    ]
    assert np.mean(right) == pytest.approx(sst.metrics["metrics"]["accuracy"])

    tags = trained("token_classification", base, tmp_path / "tags", "training.max_steps=20")
    export(str(tags.folder), str(tmp_path / "tags-peft"), to="peft")
    sentences = [row["tokens"] for row in rows_of("token_classification", 12, seed=1)]
    capsys.readouterr()
    run_script(tmp_path / "tags-peft", monkeypatch, sentences=sentences)
    printed = [line.split(" ") for line in capsys.readouterr().out.splitlines()]
    assert len({tag for _, tag in printed}) > 1
    assert [word for word, _ in printed] == [word for words in sentences for word in words]
    gold = [t for row in rows_of("token_classification", 12, seed=1) for t in row["ner_tags"]]
    accuracy = np.mean([tag == true for (_, tag), true in zip(printed, gold, strict=True)])
    assert accuracy == pytest.approx(tags.metrics["metrics"]["accuracy"])


def test_the_script_for_questions_answers_from_the_context(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job = trained("squad_v2", base, tmp_path, "training.max_steps=20")
    export(str(job.folder), str(tmp_path / "peft"), to="peft")
    rows = rows_of("squad_v2", 12, seed=1)
    rows = [row for row in rows if len(row["context"].split()) < 20]  # one window
    capsys.readouterr()
    asked = {
        "questions": [row["question"] for row in rows],
        "contexts": [row["context"] for row in rows],
    }
    variables = run_script(tmp_path / "peft", monkeypatch, **asked)
    printed = capsys.readouterr().out.splitlines()
    assert len(printed) == len(rows) > 2
    for line, row in zip(printed, rows, strict=True):
        assert line.split("'")[1] in row["context"]
        assert line.endswith(row["question"])
    assert variables["start_logits"].shape == variables["end_logits"].shape


def test_the_script_for_label_sets(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = trained("multi_label", base, tmp_path, "task.threshold=0.3")
    export(str(job.folder), str(tmp_path / "peft"), to="peft")
    variables = run_script(tmp_path / "peft", monkeypatch, texts=["the cat was great"])
    assert float(variables["thresholds"]) == 0.3
    assert variables["labels"] == job.result.metrics.get("labels", variables["labels"])


def test_an_adapter_made_in_python_names_no_base(base: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=4)
    inject(model, DCFTConfig(kernel_size=3, rank=2)).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    path = str(save_adapter(model, tmp_path))
    with pytest.raises(AdapterFileError, match="does not name its base") as caught:
        export(path, str(tmp_path / "peft"), to="peft")
    assert "--base" in caught.value.hint
    result = export(path, str(tmp_path / "peft"), to="peft", base=str(base))
    fresh = AutoModelForSequenceClassification.from_pretrained(base, num_labels=4)
    loaded = PeftModel.from_pretrained(fresh, result.folder).eval()
    ids = torch.tensor([[2, 20, 21, 3]])
    assert torch.allclose(loaded(input_ids=ids).logits, model(input_ids=ids).logits, atol=1e-5)


@pytest.mark.parametrize("family", ["deberta-v2", "roberta", "electra", "mpnet", "distilbert"])
def test_heads_of_several_layers(family: str, tmp_path: Path) -> None:
    """Poolers, nested heads, and layers before the classifier that a checkpoint lacks."""
    base = save_base(tmp_path / "base", family)
    job = trained("sst2", base, tmp_path)
    result = export(str(job.folder), str(tmp_path / "peft"), to="peft")
    assert result.difference <= 1e-5


def test_an_adapted_layer_of_the_head_is_written_in_full(tmp_path: Path) -> None:
    """Any program fills what a checkpoint lacks with other numbers: LoRA would be added to them."""
    section = ModelSection(name=str(save_base(tmp_path / "base", "deberta-v2")))
    loaded = load_model(section, load_config(section), "AutoModelForSequenceClassification")
    assert "pooler.dense.weight" in loaded.missing_keys
    trained = {"classifier.weight", "classifier.bias"}
    inject(
        loaded.model.eval(), DCFTConfig(kernel_size=4, targets=("Q", "pooler.dense")), head=trained
    )
    perturb(loaded.model)
    assert "pooler.dense" in adapter_layers(loaded.model)
    inputs, out = probes(loaded.model), tmp_path / "peft"
    difference, _ = write_peft(loaded.model, section, loaded.missing_keys, inputs, out)
    assert difference <= 1e-5
    written = json.loads((out / "adapter_config.json").read_text())
    assert "pooler" in written["modules_to_save"]
    assert not any("pooler" in name for name in written["target_modules"])


@pytest.mark.parametrize("found", [1.0, float("nan")])
def test_a_failed_proof_leaves_nothing(
    found: float, job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "write_peft", lambda *arguments: (found, (4, 4)))
    with pytest.raises(ExportError, match=r"differs from base \+ adapter by") as caught:
        export(str(job.folder), str(tmp_path / "out" / "peft"), to="peft")
    assert caught.value.exit_code == 1
    assert not (tmp_path / "out").exists()


def test_errors_come_before_any_work(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").touch()
    with pytest.raises(RunError, match="exists already"):
        export(str(job.folder), str(tmp_path / "full"), to="peft")
    other = save_base(tmp_path / "other", initializer_range=0.1)
    with pytest.raises(AdapterFileError, match="trained on other base weights"):
        export(str(job.folder), str(tmp_path / "out"), to="peft", base=str(other))
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if "onnx" in name else name)
    with pytest.raises(UserError, match="needs onnx, onnxruntime, onnxscript, which are") as caught:
        export("nowhere", str(tmp_path / "out"), to="onnx")
    assert "dcft-cli[onnx]" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("dense", ["adapter", "frozen"])
@pytest.mark.parametrize("to", ["peft", "onnx"])
def test_layers_of_a_head_that_are_not_trained_in_full(
    tmp_path: Path, dense: str, to: exporting.Format
) -> None:
    base = save_base(tmp_path / "base", "roberta", initializer_range=0.3)
    job = trained("rte", base, tmp_path, f"head.dense={dense}")
    result = export(str(job.folder), str(tmp_path / "out"), to=to)
    assert result.difference <= 1e-5
