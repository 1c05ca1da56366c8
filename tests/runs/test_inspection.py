"""Inspecting recipes, by the base's configuration, and adapter files."""

from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from dcft_cli.errors import RunError, TargetError, UserError
from dcft_cli.runs.inspect_adapter import inspect
from tests.families import published
from tests.jobs import Job, recipe, train
from tests.samples import rows_of, write_rows

# Parameters of adapter, head, LoRA r=1, and the weights of the same layers.
COUNTS = {
    "rte.yaml": ("deberta-v3-base", 25_344, 592_130, 165_888, 84_934_656),
    "roberta-large/rte.yaml": ("roberta-large", 64_512, 1_051_650, 442_368, 301_989_888),
    "deberta-v2-xxlarge/rte.yaml": (
        *("deberta-v2-xxlarge", 184_320, 2_363_906, 1_327_104, 1_358_954_496),
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_published_counts_need_only_a_configuration(name: str, tmp_path: Path) -> None:
    model, adapter, head, lora, full = COUNTS[name]
    published(model).save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["config.json"]
    found = inspect(f"recipes/{name}", [f"model.name={tmp_path}"])
    assert (found.adapter_parameters, found.head_parameters) == (adapter, head)
    assert (found.lora_parameters, found.full_parameters) == (lora, full)
    assert found.planned
    assert (found.file_bytes, found.format_version, found.norms) == (None, None, {})
    steps = {(m["kernel_size"], m["stride"], m["rank"]) for m in found.to_json()["modules"]}
    assert steps == {(8, 8, 1)}  # a stride that is not given is the kernel's size
    layers = published(model).num_hidden_layers
    roles = [module.role for module in found.modules]
    assert {role: roles.count(role) for role in roles} == dict.fromkeys(
        ["Q", "K", "V", "O", "FFN_IN", "FFN_OUT"], layers
    )


def test_labels_and_head_size_of_a_plan(tmp_path: Path) -> None:
    published("deberta-v3-base").save_pretrained(tmp_path)
    name = f"model.name={tmp_path}"
    heads = {
        task: inspect(f"recipes/{task}.yaml", [name]).head_parameters
        for task in ("rte", "mnli", "stsb", "squad_v1")
    }
    pooler = 768 * 768 + 768
    assert heads == {
        "rte": pooler + 2 * 769,
        "mnli": pooler + 3 * 769,
        "stsb": pooler + 769,
        "squad_v1": 2 * 769,
    }
    rows = [{**row, "label": f"class {number % 5}"} for number, row in enumerate(rows_of("rte", 9))]
    own = [
        name,
        "task.name=null",
        "task.type=classification",
        "data.text=sentence1",
        f"data.train={write_rows(tmp_path / 'own.jsonl', rows)}",
    ]
    found = inspect("recipes/rte.yaml", own)
    assert found.head_parameters == pooler + 5 * 769
    assert found.about["labels"] == [f"class {number}" for number in range(5)]


@pytest.fixture(scope="module")
def job(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    folder = tmp_path_factory.mktemp("job")
    settings = ("adapter.kernel_size=5", "adapter.stride=2", "adapter.rank=2")
    return train(recipe("mnli", folder, base, *settings), folder / "run")


def test_an_adapter_file_describes_what_was_trained(job: Job) -> None:
    path = job.folder / "adapter.safetensors"
    result = inspect(str(path)).to_json()
    modules = result.pop("modules")
    for module, layer in zip(modules, job.layers, strict=True):
        assert module.pop("norm") == pytest.approx(
            torch.linalg.norm(layer.delta_weight()).item(), rel=1e-4
        )
        factors = (layer.A, layer.B, layer.C)
        assert module.pop("parameters") == sum(factor.numel() for factor in factors)
    assert modules[0] == {
        "name": "bert.encoder.layer.0.attention.self.query",
        "role": "Q",
        "out_features": 16,
        "in_features": 16,
        "kernel_size": 5,
        "stride": 2,
        "rank": 2,
    }
    base, versions = result.pop("base"), result.pop("versions")
    settings = result.pop("settings")
    assert (settings["kernel_size"], settings["stride"], settings["rank"]) == (5, 2, 2)
    assert (settings["scale"], settings["targets"]) == (2.0, ["Q", "K", "V", "O", "FFN"])
    assert base["name"] == job.plan.recipe.model.name
    assert base["fingerprint"].startswith("sha256:")
    assert versions["torch"] == version("torch")
    assert result == {
        "source": str(path),
        "planned": False,
        "method": "dcft",
        "adapter_parameters": job.metrics["adapter_parameters"],
        "head_parameters": 3 * 17,
        "fixed": [],
        "file_bytes": path.stat().st_size,
        "dtype": "float32",
        "format_version": 3,
        "lora_r1_parameters": 2 * (8 * 16 + 36 + 16 + 36 + 16),
        "full_parameters": 2 * (4 * 16 * 16 + 2 * 16 * 36),
        "task": "mnli",
        "labels": ["entailment", "neutral", "contradiction"],
        "decision": {},
        "max_length": 48,
    }


def test_run_and_checkpoint_folders_and_the_recipe_of_a_run(job: Job) -> None:
    file = inspect(str(job.folder / "adapter.safetensors"))
    assert inspect(str(job.folder)) == file
    checkpoint = inspect(str(job.folder / "checkpoints" / "checkpoint-3"))
    assert checkpoint.modules == file.modules
    planned = inspect(str(job.folder / "recipe.yaml"))
    assert planned.adapter_parameters == file.adapter_parameters
    assert planned.head_parameters == file.head_parameters


def test_invalid_sources_and_targets_are_errors(job: Job, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only recipes take KEY=VALUE") as caught:
        inspect(str(job.folder), ["adapter.rank=2"])
    assert "adapter.rank=2" in caught.value.hint
    with pytest.raises(RunError, match="does not exist"):
        inspect(str(tmp_path / "nowhere"))
    published("deberta-v3-base").save_pretrained(tmp_path)
    name = f"model.name={tmp_path}"
    with pytest.raises(TargetError, match=r"No layer for the target `attn\.qkv`") as target:
        inspect("recipes/rte.yaml", [name, "adapter.targets=[attn.qkv]"])
    assert "encoder.layer.*.attention.self.query_proj  768 x 768  (12 layers)" in str(target.value)
