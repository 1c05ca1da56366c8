"""Every model family: train, save, load in a new process, merge, load in transformers."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import transformers

from dcft_cli.adapter_file.read import read_adapter
from dcft_cli.merging.merge import MergeResult, merge
from tests.families import FAMILIES, save_base, tiny_tokenizer, tokens
from tests.jobs import Job, recipe, tensors, train

# Modules of a sequence classifier that AutoModel's checkpoint lacks.
HEADS = {
    **{family: {"classifier.dense", "classifier.out_proj"} for family in FAMILIES},
    "bert": {"classifier"},
    "distilbert": {"pre_classifier", "classifier"},
    "deberta-v2": {"pooler.dense", "classifier"},
}

LOAD_ADAPTERS = """
import sys, torch
from pathlib import Path
from transformers import AutoModelForSequenceClassification
from dcft_cli import load_adapter
from tests.families import tokens
root = Path(sys.argv[1])
logits = {}
for run in root.glob("*-run"):
    family = run.name.removesuffix("-run")
    base = AutoModelForSequenceClassification.from_pretrained(root / family, num_labels=3)
    model = load_adapter(base, run / "adapter.safetensors").eval()
    logits[family] = model(**tokens()).logits.detach()
torch.save(logits, root / "loaded.pt")
"""
LOAD_MERGED = """
import json, sys, torch
from pathlib import Path
from transformers import AutoModelForSequenceClassification, AutoTokenizer
root = Path(sys.argv[1])
inputs = torch.load(root / "inputs.pt", weights_only=True)
logits, info = {}, {}
for folder in root.glob("*-merged"):
    family = folder.name.removesuffix("-merged")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    logits[family] = model(**inputs).logits.detach()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    info[family] = {
        "type": str(model.dtype),
        "id2label": model.config.id2label,
        "label2id": model.config.label2id,
        "problem_type": model.config.problem_type,
        "ids": tokenizer("the film was good", "not bad")["input_ids"],
    }
assert not [name for name in sys.modules if name.startswith("dcft")]
torch.save(logits, root / "merged.pt")
(root / "info.json").write_text(json.dumps(info))
"""


@dataclass
class Families:
    """All families trained on three classes, and the outputs of new processes."""

    root: Path
    jobs: dict[str, Job]
    merges: dict[str, MergeResult]
    expected: dict[str, torch.Tensor]
    loaded: dict[str, torch.Tensor]
    merged: dict[str, torch.Tensor]
    info: dict[str, dict]


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Families:
    root = tmp_path_factory.mktemp("families")
    jobs, merges, expected = {}, {}, {}
    for family in FAMILIES:
        base, run = save_base(root / family, family), root / f"{family}-run"
        strong = ("adapter.kernel_size=5", "training.learning_rate=0.2")
        jobs[family] = train(recipe("mnli", root, base, *strong), run)
        with torch.no_grad():
            expected[family] = jobs[family].model.eval()(**tokens()).logits
        merges[family] = merge(str(base), str(run), str(root / f"{family}-merged"))
    torch.save(tokens(), root / "inputs.pt")
    fresh(LOAD_ADAPTERS, root)
    fresh(LOAD_MERGED, root)
    return Families(
        root,
        jobs,
        merges,
        expected,
        loaded=torch.load(root / "loaded.pt", weights_only=True),
        merged=torch.load(root / "merged.pt", weights_only=True),
        info=json.loads((root / "info.json").read_text()),
    )


def fresh(code: str, root: Path) -> None:
    """Run code in a new process, with warnings as errors."""
    subprocess.run(
        [sys.executable, "-W", "error", "-c", code, str(root)],
        check=True,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )


every_family = pytest.mark.parametrize("family", FAMILIES)


@every_family
def test_a_new_process_loads_the_trained_adapter(families: Families, family: str) -> None:
    # Up to rounding: the trained model is accelerated.
    torch.testing.assert_close(families.loaded[family], families.expected[family])


@every_family
def test_transformers_loads_the_merged_model_without_dcft(families: Families, family: str) -> None:
    difference = (families.merged[family] - families.expected[family]).abs().max().item()
    assert difference <= 1e-5
    assert families.merges[family].difference <= 1e-5
    model = type(families.jobs[family].model).__name__
    assert families.merges[family].model_class == model
    assert families.merges[family].layers == 12
    labels = ["entailment", "neutral", "contradiction"]
    assert families.info[family] == {
        "type": "torch.float32",
        "id2label": {str(number): label for number, label in enumerate(labels)},
        "label2id": {label: number for number, label in enumerate(labels)},
        "problem_type": "single_label_classification",
        "ids": tiny_tokenizer()("the film was good", "not bad")["input_ids"],
    }


@every_family
def test_the_trained_model_differs_from_the_base(families: Families, family: str) -> None:
    """Else the two tests above would hold for adapters that do nothing."""
    job = families.jobs[family]
    contents = read_adapter(job.folder / "adapter.safetensors")
    assert all(contents.delta_norm(module) > 0.01 for module in contents.modules)
    base = transformers.AutoModel.from_pretrained(families.root / family)
    merged = transformers.AutoModel.from_pretrained(families.root / f"{family}-merged")
    plain, folded = (m.eval()(**tokens()).last_hidden_state for m in (base, merged))
    assert (plain - folded).abs().max() > 1e-3


@every_family
def test_the_head_is_what_the_checkpoint_lacks(families: Families, family: str) -> None:
    job = families.jobs[family]
    head = {name for name in tensors(job.folder) if name.startswith("head.")}
    assert head == {
        f"head.{module}.{kind}" for module in HEADS[family] for kind in ("weight", "bias")
    }
    parameters = dict(job.model.named_parameters())
    assert job.metrics["head_parameters"] == sum(
        parameters[name.removeprefix("head.")].numel() for name in head
    )


@every_family
def test_frozen_weights_do_not_change(families: Families, family: str) -> None:
    job = families.jobs[family]
    prefix = job.model.base_model_prefix
    now = {
        name.replace(".base.", ".").removeprefix(f"{prefix}."): parameter
        for name, parameter in job.model.named_parameters()
        if not parameter.requires_grad
    }
    before = dict(transformers.AutoModel.from_pretrained(families.root / family).named_parameters())
    assert now.keys() <= before.keys()
    # What the task model leaves out of the encoder is its pooler, at most.
    assert {name.split(".")[0] for name in before.keys() - now.keys()} <= {"pooler"}
    assert all(torch.equal(now[name], before[name]) for name in now)
