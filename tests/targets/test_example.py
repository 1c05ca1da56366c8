"""Token ids that a model can read."""

from torch import nn

from dcft_cli.targets.example import example_of
from tests.architectures.tiny import tiny_model


def test_an_example_ends_where_the_model_looks_for_an_end() -> None:
    config = tiny_model("bart").config
    found = example_of(tiny_model("bart"), rows=3)
    assert found is not None
    ids, mask = found["input_ids"], found["attention_mask"]
    assert (ids == config.eos_token_id).sum(1).tolist() == [1, 1, 1]
    assert (ids == config.eos_token_id).nonzero()[:, 1].equal(mask.sum(1) - 1)
    assert (ids[mask == 0] == config.pad_token_id).all()
    assert example_of(nn.Linear(2, 2)) is None
    assert example_of(tiny_model("perceiver")) is None  # takes anything, by another name


def test_an_example_stays_within_the_vocabulary() -> None:
    """Trimmed models keep special ids of tokens that they no longer have."""
    model = tiny_model("bart")
    model.config.eos_token_id = model.config.mask_token_id = 10**6
    found = example_of(model)
    assert found is not None and found["input_ids"].max() < model.config.vocab_size
