"""The methods of PEFT: beside plain PEFT, merged, rebuilt, and refused."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    AdaLoraConfig,
    LoKrConfig,
    LoraConfig,
    PeftConfig,
    PsoftConfig,
    RoadConfig,
    VeraConfig,
    get_peft_model,
)
from torch import nn

from dcft_cli.errors import ModelError, TargetError, UserError
from dcft_cli.methods.build import build
from dcft_cli.methods.peft_method import PEFTMethod
from dcft_cli.models.loading import load_config, load_model
from dcft_cli.recipe import AdapterSection, ModelSection
from dcft_cli.targets.resolve import find_targets
from tests.families import save_base, tiny_model
from tests.methods.attached import attach, logits
from tests.methods.peft_models import (
    SEED,
    SETTINGS,
    STEPS,
    attached,
    batch,
    model_of,
    optimizer_of,
    train,
)

FAMILIES = ("bert", "deberta-v2", "roberta", "modernbert")
ENDINGS = {
    "bert": [
        "query",
        "key",
        "value",
        "attention.output.dense",
        "intermediate.dense",
        "output.dense",
    ],
    "deberta-v2": ["query_proj", "key_proj", "value_proj", "intermediate.dense", "output.dense"],
    "modernbert": ["attn.Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"],
}
HEADS = {
    "bert": ["classifier"],
    "deberta-v2": ["pooler", "classifier"],
    "modernbert": ["head", "classifier"],
}
PLAIN: dict[str, Callable[..., PeftConfig]] = {
    "lora": lambda **more: LoraConfig(r=2, lora_alpha=4, lora_dropout=0.1, **more),
    "lora_fa": lambda **more: LoraConfig(r=2, lora_alpha=4, **more),
    "dora": lambda **more: LoraConfig(r=2, lora_alpha=4, use_dora=True, **more),
    "adalora": lambda **more: AdaLoraConfig(
        target_r=2,
        init_r=4,
        lora_alpha=8,
        tinit=1,
        tfinal=2,
        total_step=STEPS,
        orth_reg_weight=0.5,
        **more,
    ),
    "lokr": lambda **more: LoKrConfig(r=1, alpha=2, decompose_factor=4, **more),
    "psoft": lambda **more: PsoftConfig(r=4, psoft_alpha=4, **more),
    "vera": lambda **more: VeraConfig(r=8, projection_prng_key=SEED, **more),
    "road": lambda **more: RoadConfig(variant="road_1", **more),
}
GROUPS = {"bert": 4, "deberta-v2": 4, "modernbert": 8}  # RoAd's: 64, or what divides every layer


def plain_losses(name: str, family: str) -> list[float]:
    """Train as a user of PEFT does, with the same seed and batches."""
    model = model_of(family)
    torch.manual_seed(SEED)
    more = {"group_size": GROUPS[family]} if name == "road" else {}
    config = PLAIN[name](
        target_modules=ENDINGS[family], modules_to_save=HEADS[family], task_type="SEQ_CLS", **more
    )
    wrapped: Any = get_peft_model(model, config)
    if name == "lora_fa":
        for own, parameter in wrapped.named_parameters():
            parameter.requires_grad_(parameter.requires_grad and "lora_A" not in own)
    optimizer = optimizer_of(wrapped)
    wrapped.train()
    losses = []
    for step in range(1, STEPS + 1):
        torch.manual_seed(step)
        loss = wrapped(**batch(step)).loss
        loss.backward()
        optimizer.step()
        if name == "adalora":
            wrapped.base_model.update_and_allocate(step)
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


@pytest.mark.filterwarnings("ignore::FutureWarning")  # PEFT's, of names in transformers
@pytest.mark.parametrize("family", HEADS)
@pytest.mark.parametrize("name", SETTINGS)
def test_losses_are_those_of_plain_peft(name: str, family: str) -> None:
    losses = train(attached(name, model_of(family), total_steps=STEPS))
    assert losses == pytest.approx(plain_losses(name, family), abs=1e-5)
    assert losses[-1] != pytest.approx(losses[0], abs=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", SETTINGS)
def test_merging_keeps_the_outputs(name: str, family: str) -> None:
    model = model_of(family)
    base = {own: (type(module), [*module.state_dict()]) for own, module in model.named_modules()}
    method = attached(name, model, total_steps=STEPS)
    before = logits(model_of(family))
    train(method)
    change = method.weight_change()
    assert change is not None and change > 1e-4
    expected = logits(model)
    assert not torch.allclose(expected, before, atol=1e-2)
    method.merge()
    assert (logits(model) - expected).abs().max() <= 1e-5
    found = {own: (type(module), [*module.state_dict()]) for own, module in model.named_modules()}
    assert found == base
    assert not hasattr(model, "peft_config")


@pytest.mark.parametrize("name", SETTINGS)
def test_merging_a_float64_model(name: str) -> None:
    model = model_of("bert")
    method = attached(name, model, total_steps=STEPS)
    train(method)
    model.double()
    expected = logits(model)
    method.merge()
    assert (logits(model) - expected).abs().max() <= 1e-12


@pytest.mark.parametrize("name", SETTINGS)
def test_half_precision_base_and_full_precision_adapter(name: str) -> None:
    model = model_of("bert").bfloat16()
    method = attached(name, model, total_steps=STEPS)
    own = method.parameters().values()
    assert {parameter.dtype for parameter in own} == {torch.float32}
    trained = method.trained_parameters()
    assert trained == attached(name, model_of("bert"), total_steps=STEPS).trained_parameters()
    losses = train(method)
    assert all(map(torch.isfinite, torch.tensor(losses)))
    merged_in = {own: p.dtype for own, p in method.base.items()}
    assert set(merged_in.values()) == {torch.bfloat16}


@pytest.mark.parametrize("name", SETTINGS)
def test_only_head_and_method_are_trained_and_the_base_stays(name: str) -> None:
    model = model_of("bert")
    before = {own: p.detach().clone() for own, p in model.named_parameters()}
    method = attached(name, model, total_steps=STEPS)
    start = {own: p.detach().clone() for own, p in method.parameters().items()}
    moving = {own for own, p in method.parameters().items() if p.requires_grad}
    train(method)
    for own, parameter in method.base.items():
        assert torch.equal(parameter, before[own]) == (own not in method.parts.trained)
    moved = {own for own, p in method.parameters().items() if not torch.equal(p, start[own])}
    assert moved == moving


def test_a_fresh_process_rebuilds_what_is_not_saved(tmp_path: Path) -> None:
    for name in SETTINGS:
        method = attached(name, model_of("bert"), total_steps=STEPS)
        train(method)
        saved = method.parameters() | method.head()
        torch.save((saved, logits(method.model)), tmp_path / name)
    script = """
import sys, torch
from pathlib import Path
from tests.methods.attached import logits
from tests.methods.peft_models import attached, model_of
for file in Path(sys.argv[1]).iterdir():
    torch.rand(5)  # another state of the generator
    saved, expected = torch.load(file, weights_only=True)
    method = attached(file.name, model_of("bert"))
    parameters = method.parameters() | method.head()
    assert parameters.keys() == saved.keys()
    with torch.no_grad():
        for own, parameter in parameters.items():
            parameter.copy_(saved[own])
    assert torch.equal(logits(method.model), expected), file.name
    print(file.name)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == SETTINGS.keys()


def test_psoft_does_not_depend_on_the_signs_of_a_machine() -> None:
    model = model_of("bert")
    method = attached("psoft", model)
    train(method)
    saved, expected = method.parameters() | method.head(), logits(model)
    other = attached("psoft", model_of("bert"))
    with torch.no_grad():
        for parameter in other.parameters().values():  # an SVD with other signs
            if not parameter.requires_grad:
                parameter.neg_()
        for own, parameter in (other.parameters() | other.head()).items():
            parameter.copy_(saved[own])
    assert torch.equal(logits(other.model), expected)


def test_vera_has_one_projection_from_the_seed() -> None:
    first, second = (attached("vera", model_of("bert")) for _ in range(2))
    other = attach("vera", model_of("bert"), seed=SEED + 1, rank=8)
    projections = [
        {own: buffer for own, buffer in method.wrapper.named_buffers() if "vera_A" in own}  # type: ignore[attr-defined]
        for method in (first, second, other)
    ]
    (a,), (b,), (c,) = (set(found.values()) for found in projections)  # shared by all layers
    assert torch.equal(a, b) and not torch.equal(a, c)


def test_the_generator_of_a_run_is_left_alone() -> None:
    for name in SETTINGS:
        torch.manual_seed(7)
        expected = torch.rand(1)
        torch.manual_seed(7)
        model = model_of("bert")
        torch.manual_seed(7)
        attached(name, model)
        assert torch.equal(torch.rand(1), expected)


class Twins(nn.Module):
    """Two layers whose names PEFT cannot tell apart: one is the end of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.query = nn.Linear(4, 4)
        self.inner = nn.ModuleDict({"query": nn.Linear(4, 4)})


def test_layers_that_only_end_the_same_are_refused() -> None:
    model = Twins()
    targets = find_targets(model, ["query"])
    method = build(AdapterSection(method="lora"), seed=0)
    method.model, method.base = model, {}
    with pytest.raises(TargetError, match=r"cannot tell the layer inner\.query"):
        method.insert(model, targets[:1])


def test_a_part_of_a_fused_layer_is_refused() -> None:
    model = model_of("modernbert")
    with pytest.raises(TargetError, match="computes more than Q"):
        attach("lora", model, targets=["Q"])


@pytest.mark.parametrize("name", ["lora", "vera"])
def test_weights_stored_as_in_out(name: str) -> None:
    model, method = gpt2(name)
    train(method)
    expected = logits(model)
    method.merge()
    assert (logits(model) - expected).abs().max() <= 1e-5


@pytest.mark.parametrize("name", ["lokr", "psoft", "road"])
def test_methods_without_a_form_for_weights_stored_as_in_out(name: str) -> None:
    with pytest.raises(TargetError, match=rf"{name} cannot adapt .*stored as \(in, out\)"):
        gpt2(name)


def gpt2(name: str) -> tuple[nn.Module, PEFTMethod]:
    import transformers

    torch.manual_seed(0)
    config = transformers.GPT2Config(
        n_embd=16, n_layer=1, n_head=2, vocab_size=128, n_positions=32, pad_token_id=0
    )
    model = transformers.GPT2ForSequenceClassification(config).eval()
    method = attached(name, model)
    assert isinstance(method, PEFTMethod)
    return model, method


def test_psoft_with_a_rank_above_the_smallest_side() -> None:
    with pytest.raises(UserError, match=r"adapter.rank=32 is too large.*16 singular values"):
        attach("psoft", tiny_model("bert"))  # rank 32, width 16


def test_road_with_an_odd_number_of_rows() -> None:
    model = tiny_model("bert", intermediate_size=35)
    with pytest.raises(TargetError, match="has 35 rows, which make no pairs"):
        attached("road", model)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base that bitsandbytes, which packs blocks of 64 numbers, can quantize."""
    return save_base(tmp_path_factory.mktemp("wide"), hidden_size=64, intermediate_size=128)


def quantized(wide: Path) -> nn.Module:
    pytest.importorskip("bitsandbytes", reason="needs the extra quantization")
    section = ModelSection(name=str(wide), quantization="4bit")
    config = load_config(section, {"num_labels": 2})
    return load_model(section, config, "AutoModelForSequenceClassification").model


@pytest.mark.parametrize("name", ["lora", "lora_fa", "adalora", "vera", "road"])
def test_a_quantized_base(name: str, wide: Path) -> None:
    method = attached(name, quantized(wide), total_steps=STEPS)
    assert {parameter.dtype for parameter in method.parameters().values()} == {torch.float32}
    losses = train(method)
    assert all(map(torch.isfinite, torch.tensor(losses)))
    assert method.weight_change() is None
    with pytest.raises(ModelError, match="is quantized"):
        method.merge()


@pytest.mark.parametrize("name", ["dora", "lokr", "psoft"])
def test_methods_without_a_form_for_quantized_weights(name: str, wide: Path) -> None:
    with pytest.raises(TargetError, match=f"{name} cannot adapt .*its weight is quantized"):
        attached(name, quantized(wide))


@pytest.mark.parametrize("name", SETTINGS)
def test_without_peft(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dcft_cli.methods.peft_method.find_spec", lambda package: None)
    with pytest.raises(UserError, match=f"adapter.method={name} needs peft") as caught:
        build(AdapterSection(method=name), seed=0)
    assert caught.value.hint == 'Install the extra: pip install "dcft-cli[peft]".'
