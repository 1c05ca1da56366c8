"""Every type of model that classifies text, through all that an adapter goes through."""

import warnings
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcft_cli import (
    DCFTConfig,
    adapter_layers,
    inject,
    load_adapter,
    merge,
    remove_adapters,
    save_adapter,
    start_from_gradient,
)
from dcft_cli.acceleration import disable, enable
from dcft_cli.errors import ExportError
from dcft_cli.exporting.peft import write_peft
from dcft_cli.models.loading import load_model
from dcft_cli.models.tokenizers import agree_on_padding
from dcft_cli.recipe.schema import ModelSection
from dcft_cli.training.head import LinearProblem, fit_head
from tests.architectures.exceptions import (
    NO_ROLE,
    NOT_FITTED,
    ONLY_TRAINS,
    SEES_PADDING,
    UNREACHED,
)
from tests.architectures.tiny import MODEL_TYPES, UNBUILDABLE, example, tiny_config, tiny_model
from tests.families import tiny_tokenizer
from tests.small import perturb

BUILDABLE = [name for name in MODEL_TYPES if name not in UNBUILDABLE]
SEQUENCES = "AutoModelForSequenceClassification"
ROLES = ["Q", "K", "V", "O", "FFN"]


def targets_of(model_type: str) -> list[str]:
    return [role for role in ROLES if role not in NO_ROLE.get(model_type, ())]


def logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    torch.manual_seed(2)
    with torch.no_grad():
        return model(**inputs).logits


@pytest.mark.parametrize("model_type", BUILDABLE)
def test_conformance(model_type: str, tmp_path: Path) -> None:
    config = tiny_config(model_type, num_labels=3)
    inputs = example(model_type, config)
    labels = torch.tensor([0, 2])
    tiny_model(model_type, "AutoModel").save_pretrained(tmp_path / "base")
    section = ModelSection(name=str(tmp_path / "base"))

    # The base as `dcft` loads it; what its checkpoint lacks is the task head.
    torch.manual_seed(1)
    base = load_model(section, config, SEQUENCES)
    model = base.model.eval()
    assert base.missing_keys
    untouched = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    at_first = logits(model, inputs)

    # A zero start changes nothing.
    targets = targets_of(model_type)
    settings = {"kernel_size": 4, "targets": targets, "init": "gradient", "scale": 1.0}
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        inject(
            model,
            DCFTConfig(**settings),
            head=base.missing_keys,
            inputs={**inputs, "labels": labels},
        )
    assert bool(caught) == (model_type in UNREACHED), [str(w.message) for w in caught]
    torch.testing.assert_close(logits(model, inputs), at_first, rtol=0, atol=1e-6)

    # Nor does one in the direction of the gradient, which every adapter has.
    training = {**inputs, "labels": labels}
    model.train(model_type in ONLY_TRAINS)
    assert start_from_gradient(model, [training]) == []
    model.eval()
    torch.testing.assert_close(logits(model, inputs), at_first, rtol=0, atol=1e-6)

    # Perturbed, it changes the answer, and the loss moves every factor of every adapter.
    perturb(model)
    adapted = logits(model, inputs)
    assert (adapted - at_first).abs().max() > 1e-3
    model.train(model_type in ONLY_TRAINS)
    model(**training).loss.backward()
    model.eval()
    for name, adapter in adapter_layers(model).items():
        for letter, factor in adapter.named_parameters():
            assert factor.grad is not None and factor.grad.any(), f"{name}.{letter}"

    # Accelerated, it computes the same.
    expected = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    enable(model)
    torch.testing.assert_close(logits(model, inputs), adapted, rtol=0, atol=1e-4)
    model.zero_grad()
    model.train(model_type in ONLY_TRAINS)
    model(**training).loss.backward()
    disable(model)
    model.eval()
    if model_type not in ONLY_TRAINS:  # those have dropout in training, and hash at random
        for name, gradient in expected.items():
            found = model.get_parameter(name).grad
            size = max(float(gradient.abs().max()), 1e-3)
            torch.testing.assert_close(found / size, gradient / size, rtol=0, atol=1e-3, msg=name)

    # Saved, and loaded into a fresh base.
    save_adapter(model, tmp_path / "adapter.safetensors")
    torch.manual_seed(3)
    fresh = load_adapter(load_model(section, config, SEQUENCES).model.eval(), tmp_path)
    torch.testing.assert_close(logits(fresh, inputs), adapted, rtol=0, atol=1e-6)

    # Merged, it is a plain model, in any program.
    merge(fresh).save_pretrained(tmp_path / "merged")
    plain = type(fresh).from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(logits(plain, inputs), adapted, rtol=0, atol=1e-5)

    # Exported, it is a LoRA adapter of PEFT, if it belongs to linear layers.
    again = load_adapter(load_model(section, config, SEQUENCES).model.eval(), tmp_path)
    layouts = {mark for a in adapter_layers(again).values() for mark in a.target.layout}
    if layouts & {"read", "stack", "shared"}:
        with pytest.raises(ExportError, match="PEFT's LoRA cannot hold"):
            write_peft(again, section, base.missing_keys, inputs, tmp_path / "peft")
    else:
        difference, _ = write_peft(again, section, base.missing_keys, inputs, tmp_path / "peft")
        assert difference <= 1e-5 * max(1, adapted.abs().max())

    # The last layer of its head can be fitted.
    weights = {name: p.clone() for name, p in model.named_parameters()}
    problem = LinearProblem(
        examples=lambda features, batch: (features, {"labels": batch["labels"]}),
        loss=lambda logits, targets: F.cross_entropy(logits, targets["labels"]),
        logits=torch.zeros(3),
        spread=None,
    )
    fitted = fit_head(model, base.missing_keys, [training], problem)
    assert (fitted is None) == (model_type in NOT_FITTED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])

    # Taken out, nothing is left of it.
    remove_adapters(model)
    torch.testing.assert_close(logits(model, inputs), at_first, rtol=0, atol=0)
    assert model.state_dict().keys() == untouched.keys()
    assert all(torch.equal(t, untouched[name]) for name, t in model.state_dict().items())


@pytest.mark.parametrize("model_type", [name for name in BUILDABLE if name != "reformer"])
def test_padding_does_not_change_an_answer(model_type: str) -> None:
    """On the side that batches are padded on; of Reformer every input has the same length."""
    model, tokenizer = tiny_model(model_type, num_labels=3), tiny_tokenizer()
    agree_on_padding(ModelSection(name=model_type), model.config, tokenizer, SEQUENCES)
    padded = {name: rows[1:] for name, rows in example(model_type, model.config).items()}
    alone = {name: rows[:, :-3] for name, rows in padded.items()}
    if tokenizer.padding_side == "left":
        padded = {name: rows.roll(3, dims=1) for name, rows in padded.items()}
    difference = (logits(model, padded) - logits(model, alone)).abs().max()
    assert (difference > 1e-5) == (model_type in SEES_PADDING), difference
