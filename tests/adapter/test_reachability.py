"""Adapters that a forward pass never reaches are found, and looking changes nothing."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BertConfig

from dcft_cli import DCFTConfig, adapter_layers, inject, remove_adapters
from dcft_cli.adapter.adapter import DCFTAdapter
from dcft_cli.adapter.inject import remove_unreached
from dcft_cli.errors import TargetError
from dcft_cli.targets.example import example_of
from dcft_cli.targets.gradients import find_reached
from tests.architectures.tiny import example
from tests.architectures.tiny import tiny_model as any_tiny_model
from tests.families import tiny_model, tokens
from tests.small import Fused, SmallExperts, adapt, linear, perturb

X = {"x": torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))}
LABELS = torch.tensor([0, 1])


class Blind(nn.Module):
    """Computes with its layer, but lets no gradient through."""

    def __init__(self, *, head: bool = False) -> None:
        super().__init__()
        self.layer = linear(6, 6)
        self.head = linear(2, 6) if head else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.layer(x)
        return self.head(x)


class Partial(nn.Module):
    """Has more than it uses."""

    def __init__(self) -> None:
        super().__init__()
        self.attn = Fused(values=False)
        self.used, self.idle, self.spare = linear(6, 6), linear(6, 6), SmallExperts()

    def forward(self, x: Tensor) -> Tensor:
        return self.used(self.attn(x))


def test_layers_that_are_never_reached_get_no_adapter() -> None:
    model = any_tiny_model("canine")
    with pytest.warns(
        UserWarning, match=r"\d layers do not affect the output of CanineFor"
    ) as caught:
        inject(model, DCFTConfig(kernel_size=4))
    message = str(caught[0].message)
    names = adapter_layers(model)
    for layer in ("attention.self.value", "attention.output.dense", "output.dense"):
        left_out = f"canine.final_char_encoder.layer.0.{layer}"
        assert left_out in message and left_out not in names
        assert type(model.get_submodule(left_out)) is nn.Linear
    assert "canine.encoder.layer.1.output.dense" in names
    assert not any(name in message for name in names)


def test_a_slice_and_a_weight_that_is_read_are_left_out_too() -> None:
    model, untouched = Partial(), Partial()
    idle, spare = model.idle, model.spare
    targets = ["Q", "K", "V", "O", "used", "idle", "spare.*"]
    config = DCFTConfig(kernel_size=3, targets=targets)
    with pytest.warns(UserWarning, match=r"attn\.qkv\.V, idle, spare\.up_proj"):
        inject(model, config, inputs=X)
    assert adapter_layers(model).keys() == {"attn.qkv.Q", "attn.qkv.K", "attn.proj", "used"}
    assert model.idle is idle and model.spare is spare and type(spare) is SmallExperts
    perturb(model)(**X).sum().backward()
    for adapter in adapter_layers(model).values():
        assert all(p.grad is not None and p.grad.any() for p in adapter.parameters())
    remove_adapters(model)
    assert model.state_dict().keys() == untouched.state_dict().keys()


@pytest.mark.parametrize("head", [False, True])
def test_a_model_that_reaches_no_adapter_is_refused_and_left_as_it_was(head: bool) -> None:
    model = Blind(head=head)
    layer, trained = model.layer, ["head.weight"] if head else []
    with pytest.raises(TargetError, match="No adapter of Blind receives a gradient") as caught:
        inject(model, DCFTConfig(kernel_size=3, targets=["layer"]), head=trained, inputs=X)
    assert "without gradients" in caught.value.hint
    assert model.layer is layer
    assert all(p.requires_grad for p in model.parameters())


def test_inputs_that_do_not_fit_leave_the_model_as_it_was() -> None:
    model = Partial()
    with pytest.raises(TypeError, match="wrong"):
        inject(model, DCFTConfig(kernel_size=3, targets=["used"]), inputs={"wrong": X["x"]})
    assert not adapter_layers(model)
    assert all(p.requires_grad for p in model.parameters())


def test_a_model_that_wants_more_than_token_ids_keeps_all_adapters() -> None:
    model: Any = Partial()
    model.config, model.main_input_name = BertConfig(vocab_size=9), "input_ids"
    assert example_of(model) is not None
    with pytest.warns(UserWarning, match="Could not check"):
        inject(model, DCFTConfig(kernel_size=3, targets=["used", "idle"]))
    assert adapter_layers(model).keys() == {"used", "idle"}


def test_another_loss_than_the_models_decides() -> None:
    model = adapt(Partial(), "used", "idle", init="zero")
    left_out = remove_unreached(model, X, lambda outputs, inputs: model.idle(inputs["x"]).sum())
    assert left_out == ["used"] and adapter_layers(model).keys() == {"idle"}


def test_an_assertion_of_the_model_is_not_hidden() -> None:
    class Strict(Partial):
        def forward(self, x: Tensor) -> Tensor:
            assert self.training, "only in training"
            return super().forward(x)

    with pytest.raises(AssertionError, match="only in training"):
        inject(Strict(), DCFTConfig(kernel_size=3, targets=["used"]), inputs=X)


def test_nothing_is_told_where_no_gradient_flows_yet() -> None:
    """A task head that starts at zero hides every layer below it."""
    model = tiny_model()
    nn.init.zeros_(model.classifier.weight)
    inject(model, DCFTConfig(kernel_size=4), inputs={**tokens(), "labels": torch.tensor([0, 1, 0])})
    assert len(adapter_layers(model)) == 12
    found = find_reached(model, [a.C for a in adapter_layers(model).values()], tokens())
    assert found == [False] * 12


@pytest.mark.parametrize("init", ["normal", "zero"])
def test_looking_changes_nothing(init: str) -> None:
    model = adapt(tiny_model(), "Q", "FFN", init=init).train()
    model.bert.embeddings.eval()  # as a user may have it
    model(**tokens(), labels=torch.tensor([0, 1, 0])).loss.backward()
    modes = {name: module.training for name, module in model.named_modules()}
    state = torch.get_rng_state()
    before = {
        name: (p.detach().clone(), p.requires_grad, p.grad, None if p.grad is None else p.grad + 0)
        for name, p in model.named_parameters()
    }
    assert remove_unreached(model, {**tokens(), "labels": torch.tensor([0, 1, 0])}) == []
    assert torch.equal(torch.get_rng_state(), state)
    assert {name: module.training for name, module in model.named_modules()} == modes
    for name, parameter in model.named_parameters():
        value, learns, gradient, copy = before[name]
        assert torch.equal(parameter, value) and parameter.requires_grad == learns
        assert parameter.grad is gradient
        assert copy is None or gradient is None or torch.equal(gradient, copy)


def test_also_where_the_forward_pass_fails() -> None:
    model = adapt(Partial(), "used").train()
    with pytest.raises(TypeError):
        find_reached(model, [a.C for a in adapter_layers(model).values()], {"wrong": 1})
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize(
    ("base", "head"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.bfloat16),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_in_any_precision(base: torch.dtype, head: torch.dtype) -> None:
    """Also half, with a task head in float32; and autocast has nothing to say of others."""
    model = tiny_model().to(base)
    model.classifier.to(head)
    inputs = {**tokens(), "labels": torch.tensor([0, 1, 0])}
    inject(model, DCFTConfig(kernel_size=4, init="zero"), inputs=inputs)
    assert len(adapter_layers(model)) == 12


def test_reformer_learns_although_all_below_its_layers_is_frozen() -> None:
    """Its layers go backward by themselves, and where their input needs no gradient not at all."""
    model = any_tiny_model("reformer")
    embeddings = model.get_input_embeddings()
    inputs = {**example("reformer", model.config), "labels": LABELS}
    inject(model, DCFTConfig(kernel_size=4, init="normal"), inputs=inputs)
    model.train()(**inputs).loss.backward()
    adapters = adapter_layers(model)
    assert adapters
    for name, adapter in adapters.items():
        assert isinstance(adapter, DCFTAdapter)
        assert all(p.grad is not None and p.grad.any() for p in adapter.parameters()), name
    assert embeddings._forward_hooks
    remove_adapters(model)
    assert not embeddings._forward_hooks
