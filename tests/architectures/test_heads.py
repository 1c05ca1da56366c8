"""Every task head that transformers has for a type, on a base that was saved without one."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.models.auto import modeling_auto

from dcft_cli import DCFTConfig, adapter_layers, inject, load_adapter, save_adapter
from dcft_cli.errors import ModelError
from dcft_cli.models.loading import load_model
from dcft_cli.recipe.schema import ModelSection
from dcft_cli.targets.head import Dense, dense_layers, outside_encoder
from tests.architectures.exceptions import (
    ONLY_TRAINS,
    UNREACHED,
    UNREACHED_BY_ANSWERS,
    UNREACHED_BY_TOKENS,
)
from tests.architectures.test_conformance import BUILDABLE, SEQUENCES, targets_of
from tests.architectures.tiny import example, tiny_config, tiny_model

TOKENS = "AutoModelForTokenClassification"
QUESTIONS = "AutoModelForQuestionAnswering"
WITH_TOKENS, WITH_QUESTIONS = (
    [name for name in BUILDABLE if name in classes]
    for classes in (
        modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_QUESTION_ANSWERING_MAPPING_NAMES,
    )
)
LEFT_OUT = {
    SEQUENCES: UNREACHED,
    TOKENS: UNREACHED_BY_TOKENS,
    QUESTIONS: UNREACHED_BY_ANSWERS,
}
SOME = ["bert", "roberta", "deberta-v2", "distilbert", "modernbert", "bart", "t5", "gpt2", "llama"]
WITH_DENSE = ["roberta", "deberta-v2", "distilbert", "modernbert", "bart", "t5", "xlnet", "funnel"]
ENCODERS_ALONE = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel", "umt5": "UMT5EncoderModel"}
Bases = Callable[[str], Path]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> Bases:
    """Where the base of a type is, saved without a head."""
    folder = tmp_path_factory.mktemp("bases")

    def base_of(model_type: str) -> Path:
        if not (folder / model_type).exists():
            tiny_model(model_type, "AutoModel").save_pretrained(folder / model_type)
        return folder / model_type

    return base_of


@pytest.mark.parametrize("model_type", WITH_TOKENS)
def test_token_classification(model_type: str, bases: Bases, tmp_path: Path) -> None:
    config = tiny_config(model_type, num_labels=3)
    inputs = with_token_labels(example(model_type, config))
    assert round_trip(bases(model_type), TOKENS, config, inputs, tmp_path) <= 1e-6


@pytest.mark.parametrize("model_type", WITH_QUESTIONS)
def test_question_answering(model_type: str, bases: Bases, tmp_path: Path) -> None:
    config = tiny_config(model_type, num_labels=2)
    spans = {"start_positions": torch.tensor([5, 6]), "end_positions": torch.tensor([7, 6])}
    inputs = {**example(model_type, config), **spans}
    assert round_trip(bases(model_type), QUESTIONS, config, inputs, tmp_path) <= 1e-6


@pytest.mark.parametrize(
    ("problem", "labels"),
    [
        ("regression", [[0.5], [-1.5]]),
        ("multi_label_classification", [[1.0, 0.0, 1.0], [0.0, 0.0, 1.0]]),
    ],
)
@pytest.mark.parametrize("model_type", SOME)
def test_other_losses(
    model_type: str, problem: str, labels: list[list[float]], bases: Bases, tmp_path: Path
) -> None:
    config = tiny_config(model_type, num_labels=len(labels[0]), problem_type=problem)
    inputs = {**example(model_type, config), "labels": torch.tensor(labels)}
    assert round_trip(bases(model_type), SEQUENCES, config, inputs, tmp_path) <= 1e-6


@pytest.mark.parametrize("dense", ["adapter", "frozen"])
@pytest.mark.parametrize("model_type", WITH_DENSE)
def test_dense_layers_that_are_not_trained(
    model_type: str, dense: Dense, bases: Bases, tmp_path: Path
) -> None:
    config = tiny_config(model_type, num_labels=3)
    inputs = {**example(model_type, config), "labels": torch.tensor([2, 0])}
    assert round_trip(bases(model_type), SEQUENCES, config, inputs, tmp_path, dense) <= 1e-6


@pytest.mark.parametrize(
    ("auto_class", "types", "outputs"),
    [(SEQUENCES, BUILDABLE, 3), (TOKENS, WITH_TOKENS, 3), (QUESTIONS, WITH_QUESTIONS, 2)],
)
def test_no_dense_layer_gives_the_logits(auto_class: str, types: list[str], outputs: int) -> None:
    """Every head that can learn keeps a trained layer: the one with as many outputs as labels."""
    for model_type in types:
        with torch.device("meta"):
            auto = getattr(transformers, auto_class)
            model = auto.from_config(tiny_config(model_type, num_labels=outputs))
        head = outside_encoder(model)
        last = {
            name
            for name, module in model.named_modules()
            if f"{name}.weight" in head and getattr(module, "out_features", 0) == outputs
        }
        assert last.isdisjoint(dense_layers(model, head)), model_type


@pytest.mark.parametrize("model_type", ENCODERS_ALONE)
def test_an_encoder_alone_classifies_tokens(model_type: str, tmp_path: Path) -> None:
    config = tiny_config(model_type, num_labels=3)
    base = save_encoder_alone(model_type, tmp_path)
    inputs = with_token_labels(example(model_type, config))
    assert round_trip(base, TOKENS, config, inputs, tmp_path) <= 1e-6


@pytest.mark.parametrize("auto_class", [SEQUENCES, QUESTIONS])
@pytest.mark.parametrize("model_type", ENCODERS_ALONE)
def test_an_encoder_alone_is_no_base_for_a_decoder(
    model_type: str, auto_class: str, tmp_path: Path
) -> None:
    section = ModelSection(name=str(save_encoder_alone(model_type, tmp_path)))
    with pytest.raises(ModelError, match=r"decoder\.block\.0\..* is missing"):
        load_model(section, tiny_config(model_type), auto_class)


def round_trip(
    saved: Path,
    auto_class: str,
    config: PreTrainedConfig,
    inputs: dict[str, Tensor],
    folder: Path,
    dense: Dense = "full",
) -> float:
    """Loads a base, injects, goes backward once, saves, and loads into a fresh base.

    Returns the largest difference that this makes to an answer.
    """
    model_type, section = config.model_type, ModelSection(name=str(saved))
    torch.manual_seed(1)
    base = load_model(section, config, auto_class)
    model = base.model.eval()
    assert base.missing_keys == head_of(model)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        settings = DCFTConfig(kernel_size=4, targets=targets_of(model_type))
        inject(model, settings, head=base.missing_keys, dense=dense, inputs=inputs)
    left_out = [str(warning.message) for warning in caught]
    assert bool(left_out) == (model_type in LEFT_OUT[auto_class]), left_out

    model.train(model_type in ONLY_TRAINS)
    model(**inputs).loss.backward()
    model.eval()
    for name, adapter in adapter_layers(model).items():
        assert adapter.C.grad is not None and adapter.C.grad.any(), name
    for name, parameter in model.named_parameters():
        if name in base.missing_keys and parameter.requires_grad:
            assert parameter.grad is not None, name
            # The bias of a question's answers shifts all positions alike: it changes nothing.
            assert parameter.grad.any() or name == "qa_outputs.bias", name

    save_adapter(model, folder / "adapter.safetensors")
    torch.manual_seed(3)
    fresh = load_adapter(load_model(section, config, auto_class).model.eval(), folder)
    pairs = zip(answers(model, inputs), answers(fresh, inputs), strict=True)
    return max((theirs - ours).abs().max().item() for ours, theirs in pairs)


def head_of(model: PreTrainedModel) -> set[str]:
    """What stands beside the encoder; T5's class for questions is no module around one."""
    encoders = (f"{model.base_model_prefix}.", "shared.", "encoder.", "decoder.")
    head = {name for name, _ in model.named_parameters() if not name.startswith(encoders)}
    assert head
    return head


def save_encoder_alone(model_type: str, folder: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        encoder = getattr(transformers, ENCODERS_ALONE[model_type])(tiny_config(model_type))
    encoder.save_pretrained(folder / "encoder")
    return folder / "encoder"


def with_token_labels(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    mask = inputs["attention_mask"]
    labels = torch.arange(mask.numel()).reshape(mask.shape) % 3
    return {**inputs, "labels": labels.masked_fill(mask == 0, -100)}


def answers(model: nn.Module, inputs: dict[str, Tensor]) -> list[Tensor]:
    torch.manual_seed(2)
    with torch.no_grad():
        outputs = model(**inputs)
    found = [outputs[name] for name in ("logits", "start_logits", "end_logits") if name in outputs]
    assert found
    return found


def test_a_head_that_no_prefix_tells_from_the_encoder() -> None:
    """T5's class for questions has its parts at the top; what is left is its head."""
    model = tiny_model("t5", "AutoModelForQuestionAnswering")
    assert outside_encoder(model) == {"qa_outputs.weight", "qa_outputs.bias"}
    assert outside_encoder(tiny_model("albert", "AutoModel")) == set()
