"""The fingerprint of a base: of its weights alone, however they are held."""

import pytest
import torch
from torch import nn

from dcft_cli import DCFTConfig, inject
from dcft_cli.adapter_file.fingerprint import fingerprint
from dcft_cli.errors import ModelError
from dcft_cli.targets.head import outside_encoder
from tests.architectures.tiny import tiny_model as any_tiny_model
from tests.families import tiny_model
from tests.small import Packed, adapt, linear


def test_fingerprint_ignores_adapters_head_and_precision_but_no_weight() -> None:
    model = tiny_model()
    head = ["classifier.weight", "classifier.bias"]
    plain = fingerprint(model, exclude=head)
    nn.init.normal_(model.classifier.weight)
    assert fingerprint(inject(model, DCFTConfig()), exclude=head) == plain
    assert fingerprint(tiny_model().bfloat16(), exclude=head) == plain
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[7, 3] += 0.1
    assert fingerprint(model, exclude=head) != plain


@pytest.mark.parametrize(
    "model_type", ["gpt2", "squeezebert", "xlnet", "mixtral", "gpt_oss", "zamba"]
)
def test_adapters_of_every_kind_leave_it_as_it_is(model_type: str) -> None:
    model = any_tiny_model(model_type)
    head = outside_encoder(model)
    plain = fingerprint(model, exclude=head)
    assert fingerprint(adapt(model, "Q", "O", "FFN"), exclude=head) == plain


def test_a_quantized_model_has_none() -> None:
    """Its weights are no longer those of the checkpoint."""
    with pytest.raises(ModelError, match=r"quantized .* \(0\.weight\)"):
        fingerprint(nn.Sequential(Packed(linear(4, 4), torch.int8)))


def test_weights_that_are_elsewhere_have_none() -> None:
    with torch.device("meta"):
        model = nn.Linear(3, 2)
    with pytest.raises(ModelError, match=r"not all in memory \(bias is not\)"):
        fingerprint(model)
