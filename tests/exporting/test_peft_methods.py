"""Folders of PEFT's own methods, loaded by plain PEFT in another process."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from dcft_cli.exporting.export import export
from dcft_cli.exporting.peft_methods import write_peft_method
from dcft_cli.merging.proof import probes
from dcft_cli.methods.build import build
from dcft_cli.methods.peft_method import PEFTMethod
from dcft_cli.models.loading import load_config, load_model
from dcft_cli.recipe import AdapterSection, ModelSection
from dcft_cli.targets.head import find_parts
from tests.exporting.scripts import script_with
from tests.families import save_base
from tests.jobs import Job, recipe
from tests.jobs import train as run
from tests.methods.attached import logits
from tests.methods.peft_models import SEED, SETTINGS, STEPS, train
from tests.samples import rows_of

FAMILIES = ("bert", "deberta-v2", "roberta")
TYPES = {
    "lora": "LORA",
    "lora_fa": "LORA",
    "dora": "LORA",
    "adalora": "ADALORA",
    "lokr": "LOKR",
    "psoft": "LORA",  # whose singular vectors are the same on every machine
    "vera": "VERA",
    "road": "ROAD",
}
SCRIPT = """
import sys, warnings, torch
warnings.simplefilter("ignore", FutureWarning)  # transformers' own names, in PEFT
from pathlib import Path
from peft import PeftModel
from transformers import AutoModelForSequenceClassification
from tests.families import tokens
for folder in sorted(Path(sys.argv[1]).iterdir()):
    if not (folder / "adapter_config.json").exists():
        continue
    base = AutoModelForSequenceClassification.from_pretrained(
        Path(sys.argv[1]) / ("base-" + folder.name.partition("+")[2]), num_labels=3
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model = PeftModel.from_pretrained(base, folder).eval()
    assert not [w for w in caught if w.category is UserWarning], caught
    with torch.no_grad():
        found = model(**tokens(99, batch=6)).logits
    expected = torch.load(folder / "logits.pt", weights_only=True)
    assert (found - expected).abs().max() <= 1e-5, folder.name
    print(folder.name)
assert "dcft_cli" not in sys.modules
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a base of every family."""
    root = tmp_path_factory.mktemp("peft")
    for family in FAMILIES:
        save_base(root / f"base-{family}", family, initializer_range=0.3)
    return root


def section(root: Path, family: str) -> ModelSection:
    return ModelSection(name=str(root / f"base-{family}"))


def trained(
    name: str, root: Path, family: str, dense: Any = "full", *, steps: int | None = STEPS
) -> tuple[PEFTMethod, frozenset[str]]:
    """Train a method on a saved base with three classes; return it and the head's parameters."""
    where = section(root, family)
    config = load_config(where, {"num_labels": 3})
    torch.manual_seed(0)
    loaded = load_model(where, config, "AutoModelForSequenceClassification")
    settings = AdapterSection.model_validate({"method": name, **SETTINGS[name]})
    method = build(settings, seed=SEED, total_steps=steps)
    assert isinstance(method, PEFTMethod)
    parts = find_parts(loaded.model, settings.targets, head=loaded.head, dense=dense)
    method.attach(loaded.model, parts)
    train(method)
    return method, loaded.missing_keys


def write(method: PEFTMethod, head: frozenset[str], root: Path, family: str, folder: Path) -> float:
    assert isinstance(method.model, PreTrainedModel)
    if method.settings.method == "adalora":  # as loaded from a file
        method.wrapper.peft_config["default"].rank_pattern = None
    folder.mkdir()
    return write_peft_method(method, section(root, family), head, probes(method.model), folder)


def test_plain_peft_computes_the_same(root: Path) -> None:
    names = set()
    for family in FAMILIES:
        for name in SETTINGS:
            method, head = trained(name, root, family)
            expected = logits(method.model)
            folder = root / f"{name}+{family}"
            assert write(method, head, root, family, folder) <= 1e-5
            torch.save(expected, folder / "logits.pt")
            config = json.loads((folder / "adapter_config.json").read_text())
            assert config["peft_type"] == TYPES[name]
            assert config["inference_mode"] is True
            assert config["base_model_name_or_path"] == section(root, family).name
            assert any("classifier" in module for module in config["modules_to_save"])
            names.add(folder.name)
    done = subprocess.run([sys.executable, "-c", SCRIPT, root], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == names


@pytest.mark.parametrize("name", ["lora", "road"])
@pytest.mark.parametrize("dense", ["adapter", "frozen"])
def test_small_heads_are_written_in_full(name: str, dense: str, root: Path, tmp_path: Path) -> None:
    method, head = trained(name, root, "deberta-v2", dense)
    expected = logits(method.model)
    folder = tmp_path / "out"
    assert write(method, head, root, "deberta-v2", folder) <= 1e-5
    assert not any("pooler" in layer for layer in method.layers)
    assert (logits(method.model) - expected).abs().max() <= 1e-5
    config = json.loads((folder / "adapter_config.json").read_text())
    pooler = "pooler" if name == "lora" else "pooler.dense"
    assert config["modules_to_save"] == ["classifier", pooler]


def test_the_probes_tell_models_apart(root: Path, tmp_path: Path) -> None:
    method, head = trained("lora", root, "bert")
    method.model.bert.embeddings.word_embeddings.weight.data.neg_()  # another base
    assert write(method, head, root, "bert", tmp_path / "out") > 1e-2


def job_of(method: str, root: Path, folder: Path) -> Job:
    adapter = f"adapter={{method: {method}}}"
    return run(recipe("rte", folder, root / "base-bert", adapter), folder / "run")


@pytest.mark.parametrize("method", ["lora", "vera", "road"])
def test_an_exported_run_predicts_without_dcft(method: str, root: Path, tmp_path: Path) -> None:
    job = job_of(method, root, tmp_path)
    result = export(str(job.folder), str(tmp_path / "out"), to="peft")
    assert (result.method, result.layers, result.ranks) == (method, 12, None)
    assert result.difference <= 1e-5
    rows = rows_of("rte", 12, seed=1)  # those that the run was scored on
    texts = {
        "firsts": [row["sentence1"] for row in rows],
        "seconds": [row["sentence2"] for row in rows],
    }
    script = script_with(result.folder, **texts)
    script += "\nimport sys\nassert 'dcft_cli' not in sys.modules\n"
    script += "print(*probabilities.argmax(-1))\n"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=result.folder, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = map(int, done.stdout.splitlines()[-1].split())
    right = [number == row["label"] for number, row in zip(found, rows, strict=True)]
    assert sum(right) / len(right) == pytest.approx(job.metrics["metrics"]["accuracy"])


def test_onnx_of_a_method_of_peft(root: Path, tmp_path: Path) -> None:
    job = job_of("dora", root, tmp_path)
    result = export(str(job.folder), str(tmp_path / "out"), to="onnx")
    assert (result.method, result.difference <= 1e-5) == ("dora", True)
