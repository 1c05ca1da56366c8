"""A model's outputs are not rounded in mixed precision."""

from pathlib import Path

import pytest
import torch
from torch import nn

from dcft_cli import load
from dcft_cli.models.loading import load_config, load_model
from dcft_cli.models.output_layer import OutputLayer, compute_outputs_in_float32
from dcft_cli.recipe import load_recipe
from dcft_cli.recipe.schema import ModelSection
from tests.families import save_base, tokens
from tests.jobs import train
from tests.samples import write_rows

RECIPE = """\
model: {name: BASE}
task: {type: regression}
data: {train: ROWS, validation: ROWS, text: text, label: year}
training:
  {device: cpu, precision: bfloat16, max_steps: 40, batch_size: 16, learning_rate: 1e-2,
   eval_steps: 40}
"""


@pytest.mark.parametrize(
    ("family", "auto_class"),
    [
        ("bert", "AutoModelForSequenceClassification"),
        ("deberta-v2", "AutoModelForTokenClassification"),
        ("roberta", "AutoModelForQuestionAnswering"),
    ],
)
def test_only_the_last_layer_computes_in_float32(
    family: str, auto_class: str, tmp_path: Path
) -> None:
    section = ModelSection(name=str(save_base(tmp_path / "base", family)))
    model = load_model(section, load_config(section), auto_class).model.eval()
    names = [name for name, module in model.named_modules() if isinstance(module, OutputLayer)]
    (name,) = names
    layer, calls = model.get_submodule(name), []
    layer.register_forward_hook(lambda _, inputs, output: calls.append((inputs[0], output)))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        model(**tokens())
    ((x, y),) = calls
    assert y.dtype == torch.float32
    exact = nn.functional.linear(x.double(), layer.weight.double(), layer.bias.double())
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        plain = nn.functional.linear(x.float(), layer.weight, layer.bias)
        assert torch.equal(layer(x.float()), plain), "without autocast the stock layer's bits"


def test_a_model_without_a_head_is_left_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    compute_outputs_in_float32(model)
    assert type(model[0]) is nn.Linear


def test_years_are_learned_and_predicted_in_bfloat16(base: Path, tmp_path: Path) -> None:
    """bfloat16 knows the years 2000 and 2008, and none between."""
    words = ("bad", "good")
    texts = [f"{words[n % 2]} {words[n // 2 % 2]} {words[n // 4 % 2]} film" for n in range(64)]
    years = [2000 + 3 * text.count("good") for text in texts]
    rows = [{"text": text, "year": year} for text, year in zip(texts, years, strict=True)]
    recipe = RECIPE.replace("BASE", str(base)).replace(
        "ROWS", write_rows(tmp_path / "rows.jsonl", rows)
    )
    (tmp_path / "years.yaml").write_text(recipe)
    job = train(load_recipe(str(tmp_path / "years.yaml")), tmp_path / "run")
    assert job.metrics["precision"] == "bfloat16"
    assert job.metrics["metrics"]["mse"] < 0.5 * job.metrics["baselines"]["constant"]["mse"]
    found = [row["prediction"] for row in load(job.folder)(texts[:8])]
    assert len({round(year, 1) for year in found}) >= 4
    assert any(abs(year % 8) > 0.5 for year in found)
