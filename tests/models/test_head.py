"""The last layer of a task head that a base model has: found, continued, reordered, replaced."""

from copy import deepcopy

import pytest
import torch
from transformers import PreTrainedConfig, PreTrainedModel

from dcft_cli.errors import ModelError
from dcft_cli.models.head import Reuse, output_parameters, reuse_head
from dcft_cli.models.loading import BaseModel, head_outputs, skeleton
from tests.architectures.test_conformance import BUILDABLE, SEQUENCES
from tests.architectures.test_heads import QUESTIONS, SOME, TOKENS, WITH_QUESTIONS
from tests.architectures.tiny import example, tiny_config, tiny_model
from tests.families import tiny_model as tiny_bert

ORDER = [2, 0, 1]
NAMES = ["contradiction", "entailment", "neutral"]  # of the base
REORDERED = [NAMES[place] for place in ORDER]


@pytest.mark.parametrize("model_type", BUILDABLE)
def test_reordering_the_last_layer_reorders_the_outputs(model_type: str) -> None:
    assert_reordering_is_right(model_type, SEQUENCES)


@pytest.mark.parametrize("model_type", sorted({*SOME} - {"bart"}))
def test_reordering_the_classes_of_tokens(model_type: str) -> None:
    assert_reordering_is_right(model_type, TOKENS)


def assert_reordering_is_right(model_type: str, auto_class: str) -> None:
    model = tiny_model(model_type, auto_class, num_labels=3)
    own = named(model.config, NAMES)
    model.config.update({"id2label": dict(enumerate(REORDERED))})
    inputs = example(model_type, model.config)
    before = logits(model, inputs)
    layer = output_parameters(model.config, auto_class)
    assert layer, "no parameter depends on the number of classes"
    base, note = reuse_head(
        BaseModel(model, frozenset()), own, REORDERED, "auto", name="base", auto_class=auto_class
    )
    assert base.head == layer.keys()
    assert "another order (contradiction, entailment, neutral), which was changed" in note
    assert torch.equal(logits(model, inputs), before[..., ORDER])


@torch.no_grad()
def logits(model: PreTrainedModel, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    torch.manual_seed(0)
    (found,) = head_outputs(model(**inputs))
    return found


def named(
    config: PreTrainedConfig, names: list[str] | None, **settings: object
) -> PreTrainedConfig:
    """Return the configuration that a base with these classes has."""
    own = deepcopy(config)
    if names is not None:
        own.update({"num_labels": len(names), "id2label": dict(enumerate(names))})
    own.update(settings)
    return own


def reused(
    names: list[str] | None,
    labels: list[str],
    reuse: Reuse = "auto",
    problem: str | None = "single_label_classification",
    missing: frozenset[str] = frozenset(),
    outputs: int | None = None,
    **settings: object,
) -> tuple[BaseModel, str, list[int] | None]:
    """Reuse the head of a base; return where each row of its last layer came from."""
    model = tiny_bert(num_labels=outputs or len(labels))
    own = named(model.config, names, **settings)
    model.config.problem_type = problem
    before = model.classifier.weight.detach().clone()
    base, note = reuse_head(
        BaseModel(model, missing), own, labels, reuse, name="NLI", auto_class=SEQUENCES
    )
    rows = [
        next((n for n, old in enumerate(before) if torch.equal(row, old)), None)
        for row in model.classifier.weight
    ]
    return base, note, None if None in rows else rows


HEAD = frozenset({"classifier.weight", "classifier.bias"})


@pytest.mark.parametrize(
    ("names", "labels", "order"),
    [
        (NAMES, NAMES, [0, 1, 2]),
        (NAMES, REORDERED, ORDER),
        ([name.upper() for name in NAMES], REORDERED, ORDER),
        (["LABEL_0", "LABEL_1"], ["LABEL_0", "LABEL_1"], [0, 1]),
        (["0", "1"], ["1", "0"], [1, 0]),
        (["yes", "YES"], ["YES", "yes"], [1, 0]),
        # not the same classes
        (NAMES, ["entailment", "neutral", "contrary"], None),
        (["LABEL_0", "LABEL_1"], ["LABEL_1", "LABEL_0"], None),
        (["LABEL_0", "LABEL_1"], ["no", "yes"], None),
        (["yes", "YES"], ["yes", "no"], None),
        (["a", "a"], ["a", "A"], None),
        (["a", "b", "c"], ["a", "b"], None),  # a configuration that does not fit its weights
    ],
)
def test_classes_are_compared_by_name(
    names: list[str], labels: list[str], order: list[int] | None
) -> None:
    base, note, rows = reused(names, labels)
    assert rows == order
    assert base.head == HEAD
    assert (base.missing_keys, base.reused_keys) == ((set(), HEAD) if order else (HEAD, set()))
    assert ("training continues" in note) == (order is not None)
    assert ("head.reuse=keep" in note) == (order is None)


@pytest.mark.parametrize(
    ("own", "task", "continued"),
    [
        (None, "single_label_classification", True),
        (None, "multi_label_classification", False),
        ("multi_label_classification", "multi_label_classification", True),
        ("multi_label_classification", "single_label_classification", False),
        ("single_label_classification", "multi_label_classification", False),
        ("regression", "single_label_classification", False),
    ],
)
def test_another_problem_gets_a_new_layer(own: str | None, task: str, continued: bool) -> None:
    base, note, _ = reused(NAMES, NAMES, problem=task, problem_type=own)
    assert bool(base.reused_keys) == continued
    assert ("for another problem" in note) == (not continued)


@pytest.mark.parametrize("own", [None, "regression"])
def test_a_regression_is_continued(own: str | None) -> None:
    base, note, rows = reused(None, [], problem="regression", outputs=1, problem_type=own)
    assert (base.reused_keys, rows) == (HEAD, [0])
    assert "for this kind of task: training continues" in note


def test_a_head_of_another_kind_gets_a_new_layer() -> None:
    own = ["BertForTokenClassification"]
    base, note, _ = reused(NAMES, NAMES, architectures=own)
    assert (base.missing_keys, base.reused_keys) == (HEAD, set())
    assert "of another kind (BertForTokenClassification): a new last layer" in note
    own = ["BertForSequenceClassification"]
    assert reused(NAMES, NAMES, architectures=own)[0].reused_keys == HEAD


def test_the_recipe_decides() -> None:
    base, note, rows = reused(NAMES, REORDERED, "keep")
    assert (base.reused_keys, rows) == (HEAD, [0, 1, 2])
    base, note, rows = reused(["LABEL_0", "LABEL_1"], ["no", "yes"], "keep")
    assert (base.reused_keys, rows) == (HEAD, [0, 1])
    base, note, rows = reused(NAMES, NAMES, "replace")
    assert (base.missing_keys, rows) == (HEAD, None)
    assert note == "NLI has a task head (head.reuse=replace): a new last layer is trained."
    assert base.model.classifier.bias.abs().max() == 0


def test_a_head_of_another_size_is_new_already() -> None:
    base, note, _ = reused(NAMES, ["no", "yes"], missing=HEAD, architectures=None)
    assert base.missing_keys == HEAD
    assert note == (
        "The task head of NLI has 3 outputs, and the task needs 2: a new last layer is trained."
    )
    with pytest.raises(ModelError, match="no task head with 2 outputs: it has 3"):
        reused(NAMES, ["no", "yes"], "keep", missing=HEAD, architectures=None)


def test_a_base_without_a_head() -> None:
    base, note, _ = reused(None, ["no", "yes"], missing=HEAD, architectures=["BertModel"])
    assert (base.missing_keys, note) == (HEAD, "")
    with pytest.raises(ModelError, match="no task head with 2 outputs"):
        reused(None, ["no", "yes"], "keep", missing=HEAD, architectures=["BertModel"])


@pytest.mark.parametrize("model_type", WITH_QUESTIONS)
def test_start_and_end_logits_are_a_last_layer(model_type: str) -> None:
    config = tiny_config(model_type, num_labels=2)
    layer = output_parameters(config, QUESTIONS)
    shapes = {name: p.shape for name, p in skeleton(config, QUESTIONS).named_parameters()}
    assert layer and all(shapes[name][dim] == 2 for name, dim in layer.items())
