"""What the schema refuses, as the user reads it."""

from pathlib import Path
from textwrap import dedent

import pytest

from dcft_cli.errors import RecipeError
from dcft_cli.recipe import load_recipe, recipe_from_mapping

MINIMAL: dict[str, object] = {"model": {"name": "m"}, "task": {"name": "rte"}}


def problems(*overrides: str, **sections: object) -> list[str]:
    """The problems of a minimal recipe with these sections and overrides."""
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping({**MINIMAL, **sections}, "r.yaml", overrides)
    assert caught.value.hint
    assert caught.value.exit_code == 2
    return caught.value.message.splitlines()


def test_all_problems_are_listed_with_their_locations(tmp_path: Path) -> None:
    path = tmp_path / "rte.yaml"
    path.write_text(
        dedent("""\
        model:
          name: microsoft/deberta-v3-base
        task:
          name: rtee
        data:
          holdout: {fraction: 2, group_prefx: 3}
        adapter:
          learning_rate: 1e-3
        training:
          learning_rat: 1e-3
          seed: 1
          seed: 2
        """)
    )
    with pytest.raises(RecipeError) as caught:
        load_recipe(str(path), ["training.epochs=-1", "trainig.seed=3", "oops"])
    assert caught.value.message.splitlines() == [
        f"{path}:4: task.name: must be one of cola, sst2, mrpc, qqp, stsb, mnli, qnli, rte, "
        'squad_v1, squad_v2 (value "rtee"); did you mean rte?',
        f"{path}:6: data.holdout.fraction: must be less than 1 (value 2)",
        f"{path}:6: data.holdout.group_prefx: unknown key (value 3); did you mean group_prefix?",
        f"{path}:8: adapter.learning_rate: unknown key (value 0.001); "
        "did you mean training.learning_rate?",
        f"{path}:10: training.learning_rat: unknown key (value 0.001); did you mean learning_rate?",
        f"{path}:12: training.seed: given twice (first on line 11)",
        'override "training.epochs=-1": training.epochs: must be greater than 0 (value -1)',
        'override "trainig.seed=3": trainig: unknown key (value {"seed": 3}); '
        "did you mean training?",
        'override "oops": must be KEY=VALUE, such as training.learning_rate=5e-4',
    ]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.batch_size=true", "must be a whole number (value true)"),
        ("training.batch_size=8.5", "must be a whole number (value 8.5)"),
        ('training.batch_size="8"', 'must be a whole number (value "8")'),
        ("training.batch_size=0", "must be at least 1 (value 0)"),
        ("training.batch_size=", "must be a whole number (value null)"),
        ("training.seed=4294967296", "must be at most 4294967295 (value 4294967296)"),
        ("training.learning_rate=true", "must be a number (value true)"),
        ("training.learning_rate=fast", 'must be a number (value "fast")'),
        ("training.learning_rate=0", "must be greater than 0 (value 0)"),
        ("training.learning_rate=.inf", 'must be a number (value ".inf")'),
        ("training.learning_rate=.nan", 'must be a number (value ".nan")'),
        ("training.learning_rate=1e999", 'must be a number (value "1e999")'),
        ("training.warmup_ratio=1", "must be less than 1 (value 1)"),
        ("training.group_by_length=yes", 'must be true or false (value "yes")'),
        ("training.group_by_length=1", "must be true or false (value 1)"),
        ("model.name=5", 'must be text (value 5); if it is a name, put it in quotes: "5"'),
        ("model.name=true", 'must be text (value true); if it is a name, put it in quotes: "true"'),
        ("model.name=null", "must be text (value null)"),
        ("adapter.targets=Q", 'must be a list, such as [a, b] (value "Q")'),
        ("adapter.targets=[]", "must have a length of 1 or more (value [])"),
        (
            "adapter={method: lora, factor: 2}",
            "lora has no setting factor; it has dropout, file_dtype, rank, scale, targets",
        ),
        (
            "training.scheduler=cosin",
            "must be one of linear, cosine, constant, constant_with_warmup "
            '(value "cosin"); did you mean cosine?',
        ),
        (
            "data.validation=5",
            "must be text or must be a mapping, such as {name: value} (value 5); "
            'if it is a name, put it in quotes: "5"',
        ),
        ("data.text=[a, b, c]", 'must have a length of 2 or less (value ["a", "b", "c"])'),
        ("data=5", "must be a section, with its keys below it (value 5)"),
    ],
)
def test_values_are_checked_strictly(override: str, message: str) -> None:
    key = override.partition("=")[0]
    assert problems(override) == [f'override "{override}": {key}: {message}']


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_rejected(value: float) -> None:
    (problem,) = problems(training={"learning_rate": value})
    assert problem.startswith("r.yaml: training.learning_rate: must be a finite number")


def test_entries_of_lists_and_mappings_are_located() -> None:
    assert [p.split(": ")[1] for p in problems(adapter={"targets": ["Q", 1]})] == [
        "adapter.targets[1]"
    ]
    assert [p.split(": ")[1] for p in problems(data={"validation": {"a": "x", "b": 1}})] == [
        "data.validation.b"
    ]


@pytest.mark.parametrize(
    ("override", "advice"),
    [
        ("training.learning_rat=1", "did you mean learning_rate?"),
        ("training.lr=1", "did you mean learning_rate?"),
        ("learning_rate=1", "did you mean training.learning_rate?"),
        ("lr=1", "did you mean training.learning_rate?"),
        ("adapter.learning_rate=1", "did you mean training.learning_rate?"),
        ("adapter.learning_rat=1", "did you mean training.learning_rate?"),
        ("adapter.seed=1", "did you mean data.holdout.seed or training.seed?"),
        ("modle.name=x", "did you mean model?"),
        ("data.holdout.frction=1", "did you mean fraction?"),
        (
            "model.xyz=1",
            "section model takes name, revision, dtype, quantization, trust_remote_code, "
            "classifier_dropout",
        ),
        ("xyz=1", "a recipe takes model, task, data, adapter, head, training, sweep"),
    ],
)
def test_unknown_keys_come_with_the_nearest_valid_one(override: str, advice: str) -> None:
    assert any(p.endswith(f"; {advice}") and "unknown key" in p for p in problems(override))


def test_missing_sections_and_keys_are_described() -> None:
    assert problems("model=null", task=None) == [
        "r.yaml: task: give either `name` (a known task) or `type`",
        'override "model=null": model.name: missing; section model needs this key: Hub name, '
        "local folder, or `package://PACKAGE/PATH` inside an installed package.",
    ]
    with pytest.raises(RecipeError) as caught:
        recipe_from_mapping({}, "r.yaml")
    assert caught.value.message.splitlines() == [
        "r.yaml: model: missing; a recipe needs this section: The frozen base model.",
        "r.yaml: task: missing; a recipe needs this section: "
        "The task: a known one by `name`, or a `type` for your own data.",
    ]


def test_long_values_are_shortened() -> None:
    (problem,) = problems(data={"text": ["x" * 500] * 3})
    assert len(problem) < 200


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("training", {"warmup_steps": 1, "warmup_ratio": 0.1}, "`warmup_ratio`, not both"),
        ("data", {"validation": "v", "holdout": {"fraction": 0.1}}, "or `holdout`, not both"),
        ("adapter", {"kernel_size": 4, "stride": 8}, "`stride: 8` is larger than `kernel_size: 4`"),
        ("task", {"type": "regression"}, "`type: regression` does not fit `name: rte`"),
    ],
)
def test_rules_about_several_keys(section: str, values: dict, message: str) -> None:
    given = {**values, "name": "rte"} if section == "task" else values
    (problem,) = problems(**{section: given})
    assert problem.startswith(f"r.yaml: {section}: ") and message in problem


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("training.num_train_epochs", "training.epochs"),
        ("data.max_seq_length", "data.max_length"),
        ("model.model_name_or_path", "model.name"),
    ],
)
def test_names_of_other_training_scripts_are_known(key: str, near: str) -> None:
    assert problems(f"{key}=1")[0].endswith(f"did you mean {near}?")
