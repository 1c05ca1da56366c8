"""The paper's experiments as sweeps: every row of its tables and figures has a file."""

import json
import re
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

from dcft_cli.recipe import Recipe, load_recipe
from dcft_cli.runs.adapter_plan import plan_adapter
from tests.families import published

RECIPES = Path(__file__).parents[2] / "recipes"
PAPER = RECIPES / "paper"
README = (PAPER / "README.md").read_text("utf-8")
DATA = ("model.name=base", "data.train=train.jsonl", "data.validation=dev.jsonl")
TITLES = {
    "CoLA": "cola",
    "SST-2": "sst2",
    "MRPC": "mrpc",
    "QQP": "qqp",
    "STS-B": "stsb",
    "MNLI": "mnli",
    "QNLI": "qnli",
    "RTE": "rte",
    "SQuAD v1.1": "squad_v1",
    "SQuAD v2.0": "squad_v2",
}


class Experiment(NamedTuple):
    """A table or figure of the paper, or its part for one model."""

    model: str
    tasks: str
    rows: str


BASE, LARGE, XXLARGE = "deberta-v3-base", "roberta-large", "deberta-v2-xxlarge"
GLUE = "cola sst2 mrpc qqp stsb mnli qnli rte"
FOUR = "cola mrpc stsb rte"
# As counted in the paper: models, data sets and rows.
EXPERIMENTS = {
    "table1/deberta-v3-base": Experiment(
        BASE, GLUE, "full bitfit houlsby pfeiffer lora sora lora_fa dcft-d8 dcft-d2"
    ),
    "table1/roberta-large": Experiment(
        LARGE, GLUE, "full houlsby pfeiffer lora lora_fa dcft-d8 dcft-d2"
    ),
    "table2": Experiment(XXLARGE, "cola sst2 stsb qnli", "full lora dcft-d8"),
    "table3": Experiment(BASE, "squad_v1 squad_v2", "full houlsby pfeiffer lora dcft-d2"),
    "table4": Experiment(
        BASE, "sst2 cola qnli rte mrpc stsb", "full dcft-d2 dcft-d4 dcft-d6 dcft-d8 dcft-d12"
    ),
    "table5": Experiment(BASE, FOUR, "dcft-s1 dcft-s2 dcft-s4 dcft-s8"),
    "table6": Experiment(BASE, FOUR, "dcft-qk dcft-qv dcft-qkv dcft-qkvo dcft-all"),
    "figure2": Experiment(BASE, "cola rte mrpc qnli", "dcft-d8 lora"),
    "figure3": Experiment(BASE, "sst2", "dcft-d8 lora"),
}
FILES = [
    pytest.param(folder, task, id=f"{folder}/{task}")
    for folder, experiment in EXPERIMENTS.items()
    for task in experiment.tasks.split()
]
TARGETS = {
    "qk": ["Q", "K"],
    "qv": ["Q", "V"],
    "qkv": ["Q", "K", "V"],
    "qkvo": ["Q", "K", "V", "O", "FFN_OUT"],
    "all": ["Q", "K", "V", "O", "FFN"],
}
# Bottleneck or rank, and targets, which the paper's #Params imply.
SIZES = {
    ("table1/deberta-v3-base", "houlsby"): {"bottleneck": 8},
    ("table1/deberta-v3-base", "pfeiffer"): {"bottleneck": 16},
    ("table1/deberta-v3-base", "lora"): {"rank": 1, "targets": TARGETS["all"]},
    ("table1/deberta-v3-base", "sora"): {"rank": 1, "targets": TARGETS["all"]},
    ("table1/deberta-v3-base", "lora_fa"): {"rank": 1, "targets": TARGETS["all"]},
    ("table1/roberta-large", "houlsby"): {"bottleneck": 8},
    ("table1/roberta-large", "pfeiffer"): {"bottleneck": 16},
    ("table1/roberta-large", "lora"): {"rank": 8, "targets": ["Q", "V"]},
    ("table1/roberta-large", "lora_fa"): {"rank": 16, "targets": TARGETS["all"]},
    ("table2", "lora"): {"rank": 16, "targets": ["Q", "V"]},
    ("table3", "houlsby"): {"bottleneck": 4},
    ("table3", "pfeiffer"): {"bottleneck": 8},
    ("table3", "lora"): {"rank": 1, "targets": TARGETS["all"]},
    ("figure2", "lora"): {"rank": 1, "targets": TARGETS["all"]},
    ("figure3", "lora"): {"rank": 1, "targets": TARGETS["all"]},
}


@cache
def load(folder: str, task: str, *overrides: str) -> Recipe:
    return load_recipe(str(PAPER / folder / f"{task}.yaml"), overrides).recipe


def runs(folder: str, task: str, *overrides: str) -> dict[str, Recipe]:
    """The recipe of each variant."""
    sweep = load(folder, task).sweep
    assert sweep is not None and not sweep.grid and not sweep.tune and sweep.seeds == 1
    return {
        variant: load(
            folder, task, *overrides, *(f"{key}={json.dumps(v)}" for key, v in settings.items())
        )
        for variant, settings in sweep.variants.items()
    }


def test_every_row_of_the_paper_has_its_files() -> None:
    wanted = [f"{f}/{t}.yaml" for f, e in EXPERIMENTS.items() for t in e.tasks.split()]
    assert sorted(p.relative_to(PAPER).as_posix() for p in PAPER.rglob("*.yaml")) == sorted(wanted)
    rows, cells = Counter[str](), Counter[str]()
    for folder, experiment in EXPERIMENTS.items():
        rows[folder[:6]] += len(experiment.rows.split())
        cells[folder[:6]] += sum(len(runs(folder, task)) for task in experiment.tasks.split())
    assert (rows["table1"], rows["table2"], rows["table3"]) == (16, 3, 5)
    assert (rows["table4"], rows["table5"], rows["table6"], rows["figure"]) == (6, 4, 5, 4)
    assert (cells["table1"], cells["table2"], cells["table3"]) == (128, 12, 10)
    assert (cells["table4"], cells["table5"], cells["table6"], cells["figure"]) == (36, 16, 20, 10)


@pytest.mark.parametrize(("folder", "task"), FILES)
def test_a_file_has_the_settings_of_the_ordinary_recipe(folder: str, task: str) -> None:
    model = EXPERIMENTS[folder].model
    ordinary = f"{'' if model == BASE else f'{model}/'}{task}.yaml"
    recipe = load(folder, task)
    assert recipe.model_copy(update={"sweep": None}) == load_recipe(str(RECIPES / ordinary)).recipe
    assert (recipe.model.name.rpartition("/")[2], recipe.task.name) == (model, task)
    text = (PAPER / folder / f"{task}.yaml").read_text("utf-8")
    assert f"# Settings of all rows: those of recipes/{ordinary}.\n" in text
    assert f"# Run: dcft sweep recipes/paper/{folder}/{task}.yaml\n" in text


@pytest.mark.parametrize(("folder", "task"), FILES)
def test_the_variants_are_the_rows_of_the_paper(folder: str, task: str) -> None:
    base, found = load(folder, task), runs(folder, task)
    assert list(found) == EXPERIMENTS[folder].rows.split()
    for variant, recipe in found.items():
        method, _, setting = variant.partition("-")
        assert recipe.adapter.method == method
        adapter = recipe.adapter.model_dump()
        if method == "dcft":
            wanted = {"kernel_size": 8, "stride": None, "targets": TARGETS["all"]}
            if setting in TARGETS:
                wanted["targets"] = TARGETS[setting]
            else:
                wanted[{"d": "kernel_size", "s": "stride"}[setting[0]]] = int(setting[1:])
            assert adapter == base.adapter.model_dump() | wanted
        else:
            size = SIZES.get((folder, variant), {})
            assert {key: adapter[key] for key in size} == size


@pytest.mark.parametrize(("folder", "task"), FILES)
def test_methods_share_all_settings_but_their_own(folder: str, task: str) -> None:
    base = load(folder, task)
    for variant, recipe in runs(folder, task).items():
        assert (recipe.model, recipe.task, recipe.data) == (base.model, base.task, base.data)
        training, shared = recipe.training.model_dump(), base.training.model_dump()
        if not variant.startswith("dcft"):
            # `dcft sweep` changes the method, which removes a learning rate chosen for DCFT.
            assert base.sweep and "training.learning_rate" in base.sweep.variants[variant]
            del training["learning_rate"], shared["learning_rate"]
        if variant == "sora":
            shared |= {"weight_decay": 0.1, "max_grad_norm": 0.1}
        assert training == shared


@pytest.mark.parametrize(("folder", "task"), FILES)
def test_the_files_take_another_encoder_and_local_data(folder: str, task: str) -> None:
    for recipe in runs(folder, task, *DATA).values():
        assert (recipe.model.name, recipe.data.train, recipe.data.validation) == (
            "base",
            "train.jsonl",
            "dev.jsonl",
        )


def table(folder: str) -> list[dict[str, str]]:
    """The rows of an experiment in the README."""
    shown = re.search(rf"dcft sweep recipes/paper/{folder}/\S+\n\n((?:\|.*\n)+)", README)
    assert shown
    lines = shown[1].splitlines()
    head, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return [dict(zip(head, row, strict=True)) for row in rows]


@pytest.mark.parametrize("folder", EXPERIMENTS)
def test_the_readme_and_the_files_have_the_same_rows_and_scores(folder: str) -> None:
    experiment = EXPERIMENTS[folder]
    rows = table(folder)
    assert [row["variant"].strip("`") for row in rows] == experiment.rows.split()
    columns = [name for name in rows[0] if name in TITLES]
    assert [TITLES[name] for name in columns] == experiment.tasks.split()
    for column in columns:
        text = (PAPER / folder / f"{TITLES[column]}.yaml").read_text("utf-8")
        for row in rows:
            (comment,) = re.findall(rf"^    {row['variant'].strip('`')}: +# (.*)$", text, re.M)
            numbers = "; ".join(filter(None, (row["#Params"], row[column])))
            assert comment == f"{row['row']}: {numbers}".removesuffix(": ")


@pytest.mark.parametrize("folder", EXPERIMENTS)
def test_the_readme_counts_what_is_trained(folder: str) -> None:
    experiment = EXPERIMENTS[folder]
    task = experiment.tasks.split()[0]
    auto = "QuestionAnswering" if "squad" in task else "SequenceClassification"
    for row in table(folder):
        recipe = runs(folder, task)[row["variant"].strip("`")]
        plan = plan_adapter(recipe.adapter, published(experiment.model), f"AutoModelFor{auto}")
        assert row["trained here"] == f"{plan.adapter_parameters:,}", row["row"]


def test_the_commands_in_the_readme_name_files() -> None:
    commands = re.findall(r"dcft sweep recipes/paper/(\S+)", README)
    assert len(commands) > len(EXPERIMENTS)
    assert all((PAPER / name).is_file() for name in commands)
    folders = {(PAPER / name).parent.relative_to(PAPER).as_posix() for name in commands}
    assert folders == set(EXPERIMENTS)
