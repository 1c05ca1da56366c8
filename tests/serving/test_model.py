"""Many adapters in one model give what each of them gives alone."""

import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
import transformers
from torch import Tensor

from dcft_cli import DCFTConfig, DCFTModel, inject, load_adapter, save_adapter
from dcft_cli.acceleration import enable
from dcft_cli.adapter_file.read import read_adapter
from dcft_cli.errors import AdapterFileError, ModelError, TargetError
from dcft_cli.models.loading import head_outputs
from dcft_cli.models.output_layer import compute_outputs_in_float32
from dcft_cli.serving import model as serving
from tests.architectures.tiny import example, tiny_model
from tests.families import save_base
from tests.jobs import recipe, train
from tests.merging.adapters import adapter_for
from tests.serving.adapters import (
    LABELS,
    QUESTIONS,
    SEQUENCES,
    TOKENS,
    outputs_alone,
    save,
    save_adapters,
)

# Of six rows; neighbors differ, and one adapter has several rows.
NAMES = ["small", "overlapping", "other.values", "few layers", "small", "other.values"]
MIXING = ["bert", "roberta", "deberta-v2", "modernbert", "distilbert", "albert", "gpt2"]


def served(model_type: str, paths: dict[str, Path], auto_class: str = SEQUENCES) -> DCFTModel:
    model = tiny_model(model_type, auto_class)
    enable(model)
    served = DCFTModel(model)
    for path in paths.values():
        served.load_adapter(path)
    return served


def largest_error(
    model: DCFTModel, inputs: dict[str, Tensor], alone: dict[str, list[Tensor]]
) -> float:
    """Compare one pass over NAMES, and one adapter after the other, with each of them alone."""
    errors = []
    for name, expected in alone.items():
        model.set_adapter(name)
        pairs = zip(head_outputs(model(**inputs)), expected, strict=True)
        errors += [(own - other).abs().max() for own, other in pairs]
    for number, output in enumerate(head_outputs(model(**inputs, adapter_names=NAMES))):
        for row, name in enumerate(NAMES):
            expected = alone[name][number][row]
            width = expected.shape[-1]
            errors.append((output[row, ..., :width] - expected).abs().max())
            assert (output[row, ..., width:] == -torch.inf).all()
    return float(torch.stack(errors).max())


@pytest.mark.parametrize("auto_class", [SEQUENCES, TOKENS, QUESTIONS])
@pytest.mark.parametrize("model_type", MIXING)
def test_rows_of_different_adapters_in_one_pass(
    model_type: str, auto_class: str, tmp_path: Path
) -> None:
    paths = save_adapters(model_type, tmp_path, auto_class)
    model = served(model_type, paths, auto_class)
    inputs = example(model_type, model.model.config, batch=len(NAMES))
    alone = {n: outputs_alone(model_type, p, inputs, auto_class) for n, p in paths.items()}
    one, other = (alone[name][0][..., :2] for name in ("small", "few layers"))
    assert (one - other).abs().max() > 0.1, "adapters that hardly differ prove nothing"
    assert model.can_mix(model.adapter_names)
    assert largest_error(model, inputs, alone) < 1e-5


def test_outputs_of_mixed_adapters_are_not_rounded_in_mixed_precision(tmp_path: Path) -> None:
    paths = save_adapters("bert", tmp_path)
    model = tiny_model("bert", SEQUENCES)
    compute_outputs_in_float32(model)
    model = DCFTModel(model)
    for path in paths.values():
        model.load_adapter(path)
    inputs = example("bert", model.model.config, batch=len(NAMES))
    with torch.autocast("cpu", torch.bfloat16):
        for names in (NAMES, NAMES[:1] * len(NAMES)):
            logits = model(**inputs, adapter_names=names).logits
            finite = logits[logits.isfinite()]
            assert not torch.equal(finite, finite.bfloat16().float())


@pytest.mark.filterwarnings("ignore:.* layers do not affect the output")
# Rows are not in dimension 0 (Longformer), weights are read (XLNet, SqueezeBERT, the experts of
# Mixtral), and transformers' own attention of DeBERTa expects one table of positions.
@pytest.mark.parametrize(
    "model_type", ["longformer", "xlnet", "squeezebert", "mixtral", "deberta-v2"]
)
def test_other_models_compute_one_adapter_after_the_other(model_type: str, tmp_path: Path) -> None:
    paths = save_adapters(model_type, tmp_path)
    model = DCFTModel(tiny_model(model_type))
    for path in paths.values():
        model.load_adapter(path)
    # As many rows as tokens: no size tells one from the other.
    inputs = example(model_type, model.model.config, batch=len(NAMES), length=len(NAMES))
    alone = {name: outputs_alone(model_type, path, inputs) for name, path in paths.items()}
    assert not model.can_mix(["small"])
    assert largest_error(model, inputs, alone) < 1e-5


@pytest.fixture(scope="module")
def paths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_adapters("bert", tmp_path_factory.mktemp("adapters"))


@pytest.fixture
def model(paths: dict[str, Path]) -> DCFTModel:
    return served("bert", paths)


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    return example("bert", tiny_model("bert").config, batch=len(NAMES))


def test_switching_reads_no_file(tmp_path: Path, inputs: dict[str, Tensor]) -> None:
    paths = {name: save("bert", name, tmp_path) for name in ("small", "overlapping")}
    model = served("bert", paths)
    for path in paths.values():
        path.unlink()
    assert model.active_adapter == "small"
    first = model(**inputs).logits
    model.set_adapter("overlapping")
    assert model.active_adapter == "overlapping"
    assert model(**inputs).logits.shape == (len(NAMES), LABELS["overlapping"])
    model.set_adapter("small")
    assert torch.equal(model(**inputs).logits, first)


def test_names_and_labels(model: DCFTModel) -> None:
    assert model.adapter_names == list(LABELS)
    assert [len(model.labels(name)) for name in LABELS] == list(LABELS.values())


def test_an_adapter_adds_its_own_values_only(
    model: DCFTModel, paths: dict[str, Path], tmp_path: Path
) -> None:
    before = sum(buffer.numel() for buffer in model.buffers())
    contents = read_adapter(paths["small"])
    assert model.load_adapter(contents, "again") == "again"
    added = sum(buffer.numel() for buffer in model.buffers()) - before
    assert added == contents.adapter_parameters + contents.head_parameters


def test_deleting(model: DCFTModel, inputs: dict[str, Tensor], paths: dict[str, Path]) -> None:
    expected = model(**inputs, adapter_names=NAMES).logits
    model.delete_adapter("small")
    assert "small" not in model.adapter_names
    with pytest.raises(ModelError, match="No adapter is active"):
        model(**inputs)
    model.load_adapter(paths["small"])
    assert torch.equal(model(**inputs, adapter_names=NAMES).logits, expected)


def test_probabilities_need_no_mask(model: DCFTModel, inputs: dict[str, Tensor]) -> None:
    probabilities = model(**inputs, adapter_names=NAMES).logits.softmax(-1)
    for row, name in enumerate(NAMES):
        model.set_adapter(name)
        alone = model(**inputs).logits[row].softmax(-1)
        torch.testing.assert_close(probabilities[row, : len(alone)], alone)
        assert not probabilities[row, len(alone) :].any()


def test_each_thread_has_its_own_adapters(model: DCFTModel, inputs: dict[str, Tensor]) -> None:
    orders = [NAMES[shift:] + NAMES[:shift] for shift in range(6)] * 5
    expected = [model(**inputs, adapter_names=names).logits for names in orders]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda names: model(**inputs, adapter_names=names).logits, orders))
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_outputs_have_no_gradient(model: DCFTModel, inputs: dict[str, Tensor]) -> None:
    assert not model(**inputs, adapter_names=NAMES).logits.requires_grad
    assert not model.training


def test_errors(model: DCFTModel, inputs: dict[str, Tensor], paths: dict[str, Path]) -> None:
    unknown = r"no adapter called smal\.\nLoaded: small, other\.values, overlapping, few layers\."
    for call in (model.set_adapter, model.delete_adapter, model.labels):
        with pytest.raises(ModelError, match=unknown):
            call("smal")
    with pytest.raises(ModelError, match=unknown):
        model(**inputs, adapter_names=["smal"] * 6)
    with pytest.raises(ModelError, match="2 adapter names for inputs of 6 rows"):
        model(**inputs, adapter_names=["small", "overlapping"])
    with pytest.raises(ModelError, match="There is an adapter called small"):
        model.load_adapter(paths["small"])
    with pytest.raises(TargetError, match="has DCFT adapters already"):
        DCFTModel(load_adapter(tiny_model("bert", num_labels=2), paths["small"]))


def test_adapters_of_other_models_are_refused(paths: dict[str, Path], tmp_path: Path) -> None:
    model = DCFTModel(tiny_model("bert", TOKENS))
    with pytest.raises(AdapterFileError, match="trained with BertForSequenceClassification; this"):
        model.load_adapter(paths["small"])
    model = DCFTModel(tiny_model("bert", seed=1))
    with pytest.raises(AdapterFileError, match="other base weights"):
        model.load_adapter(paths["small"])
    model.load_adapter(paths["small"], check_base=False)
    model = DCFTModel(tiny_model("bert", hidden_size=16))
    with pytest.raises(AdapterFileError, match="the model has 16 x 16"):
        model.load_adapter(paths["small"])
    assert model.adapter_names == []


def test_from_a_pretrained_base(base: Path, inputs: dict[str, Tensor]) -> None:
    model = DCFTModel.from_pretrained(str(base))
    path = adapter_for(base)
    assert model.load_adapter(path) == path.stem
    assert model(**inputs).logits.shape == (len(NAMES), 3)


def test_addresses(base: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    package = tmp_path / "adapters_of_acme"
    package.mkdir()
    (package / "__init__.py").touch()
    path = shutil.copy(adapter_for(base), package / "adapter.safetensors")
    monkeypatch.syspath_prepend(tmp_path)
    model = DCFTModel.from_pretrained(str(base))
    assert model.load_adapter("package://adapters_of_acme") == "adapters_of_acme"
    monkeypatch.setattr(serving, "locate", lambda source: path)
    assert model.load_adapter("hub://acme/opinions@v1") == "opinions"


def test_an_adapter_cannot_change_the_base_of_another(tmp_path: Path) -> None:
    head = ["classifier.out_proj.weight", "classifier.out_proj.bias"]
    reads = inject(tiny_model("roberta"), DCFTConfig(), head=head)
    sets = inject(tiny_model("roberta"), DCFTConfig(), dense="frozen")
    paths = [save_adapter(m, tmp_path / n) for m, n in ((reads, "reads"), (sets, "sets"))]
    model = DCFTModel(tiny_model("roberta"))
    model.load_adapter(paths[0], "reads")
    with pytest.raises(AdapterFileError, match=r"sets classifier\.dense\.bias .* adapter reads"):
        model.load_adapter(paths[1], "sets")
    assert model.adapter_names == ["reads"]


@pytest.mark.parametrize("dense", ["adapter", "frozen"])
def test_adapters_whose_heads_have_layers_that_are_not_trained(tmp_path: Path, dense: str) -> None:
    base = save_base(tmp_path / "base", "roberta", initializer_range=0.3)
    strong = ("training.learning_rate=0.05", "adapter.scale=8")
    for kind in ("full", dense):
        train(recipe("rte", tmp_path, base, *strong, f"head.dense={kind}"), tmp_path / kind)
    model = DCFTModel.from_pretrained(str(base))
    inputs = {"input_ids": torch.tensor([[5, 9, 13, 6], [5, 8, 6, 7]])}
    for kind in ("full", dense):
        model.load_adapter(tmp_path / kind, kind)
    mixed = model(**inputs, adapter_names=["full", dense]).logits
    for row, kind in enumerate(("full", dense)):
        fresh = transformers.AutoModelForSequenceClassification.from_pretrained(base)
        with torch.no_grad():
            alone = load_adapter(fresh, tmp_path / kind).eval()(**inputs).logits
        assert torch.allclose(mixed[row], alone[row], atol=1e-5)
