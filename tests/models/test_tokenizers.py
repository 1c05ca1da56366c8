"""Tokenizers as published, and missing or incomplete ones."""

import json
import shutil
from pathlib import Path

import pytest
import sentencepiece
from datasets import Dataset
from transformers import (
    AutoTokenizer,
    CanineConfig,
    CanineTokenizer,
    DebertaV2Config,
    GPT2Config,
    PreTrainedConfig,
    XLNetConfig,
)

from dcft_cli.errors import ModelError
from dcft_cli.models.tokenizers import agree_on_padding, check_token_ids, load_tokenizer
from dcft_cli.recipe import ModelSection
from tests.families import FAMILIES, save_base, tiny_tokenizer

HEAD = "AutoModelForSequenceClassification"


def test_a_sentencepiece_model_is_enough(tmp_path: Path) -> None:
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(["the cat sat on the mat", "a dog ran very far away"] * 50),
        model_prefix=str(tmp_path / "spm"),
        vocab_size=22,
        pad_id=0,
        bos_id=1,
        eos_id=2,
        unk_id=3,
        pad_piece="[PAD]",
        bos_piece="[CLS]",
        eos_piece="[SEP]",
        unk_piece="[UNK]",
        minloglevel=2,
    )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"vocab_type": "spm"}))
    DebertaV2Config(vocab_size=64).save_pretrained(tmp_path)
    tokenizer = load_tokenizer(ModelSection(name=str(tmp_path)))
    encoded = tokenizer("the cat", return_offsets_mapping=True)
    assert encoded["input_ids"][0] == 1 and encoded["input_ids"][-1] == 2
    assert encoded["offset_mapping"][-2][1] == len("the cat")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_without_a_tokenizer_is_an_error(family: str, tmp_path: Path) -> None:
    """For some families, transformers would create a tokenizer without words."""
    save_base(tmp_path, family)
    for file in tmp_path.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(ModelError, match="tokenizer") as caught:
        load_tokenizer(ModelSection(name=str(tmp_path)))
    assert str(tmp_path) in caught.value.message


def test_tokenizer(base: Path, tmp_path: Path) -> None:
    broken = Path(shutil.copytree(base, tmp_path / "base"))
    section = ModelSection(name=str(broken))
    assert (
        load_tokenizer(section)("a good film").input_ids
        == tiny_tokenizer()("a good film").input_ids
    )
    whole = (broken / "tokenizer.json").read_bytes()
    (broken / "tokenizer.json").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ModelError, match="Cannot load the tokenizer"):
        load_tokenizer(section)


def gpt(folder: Path, **settings: object) -> tuple[ModelSection, GPT2Config]:
    """A base whose tokenizer has no token to pad with."""
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(folder)
    config = GPT2Config(vocab_size=128, **settings)
    config.save_pretrained(folder)
    return ModelSection(name=str(folder)), config


def test_a_missing_padding_token_is_replaced(tmp_path: Path) -> None:
    section, config = gpt(tmp_path, pad_token_id=7)
    tokenizer = load_tokenizer(section)
    agree_on_padding(section, config, tokenizer, HEAD)
    assert tokenizer.pad_token == "[SEP]"
    assert config.pad_token_id == tokenizer.pad_token_id
    tokenizer.pad_token = None
    tokenizer.eos_token = tokenizer.unk_token = None
    with pytest.raises(ModelError, match="no token to pad"):
        agree_on_padding(section, config, tokenizer, HEAD)


@pytest.mark.parametrize("given", ["left", "right", None])
@pytest.mark.parametrize(
    ("config", "head", "expected"),
    [
        (GPT2Config(), HEAD, "right"),
        (XLNetConfig(), HEAD, "left"),
        (XLNetConfig(), "XLNetForSequenceClassification", "left"),
        (XLNetConfig(), "AutoModelForTokenClassification", "right"),
    ],
)
def test_the_side_to_pad_on_is_the_models(
    given: str | None, config: PreTrainedConfig, head: str, expected: str, tmp_path: Path
) -> None:
    """A folder that the tokenizer is saved in says so too."""
    tokenizer = tiny_tokenizer(**{"padding_side": given} if given else {})
    agree_on_padding(ModelSection(name="base"), config, tokenizer, head)
    assert tokenizer.padding_side == expected
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).padding_side == expected


def test_a_slow_tokenizer_works_without_offsets(tmp_path: Path) -> None:
    CanineConfig().save_pretrained(tmp_path)
    CanineTokenizer().save_pretrained(tmp_path)
    section = ModelSection(name=str(tmp_path))
    assert load_tokenizer(section)("film").input_ids[1:-1] == [ord(letter) for letter in "film"]
    with pytest.raises(ModelError, match="no character offsets"):
        load_tokenizer(section, offsets=True)


def test_a_padding_token_beyond_the_embeddings(tmp_path: Path) -> None:
    section, config = gpt(tmp_path)
    tokenizer = load_tokenizer(section)
    tokenizer.add_special_tokens({"pad_token": "[a new one]"})
    config.vocab_size = len(tokenizer)
    agree_on_padding(section, config, tokenizer, HEAD)
    config.vocab_size -= 1
    with pytest.raises(ModelError, match=r"'\[a new one\]' \(\d+\) pads batches"):
        agree_on_padding(section, config, tokenizer, HEAD)


def test_every_token_of_the_data_has_an_embedding(tmp_path: Path) -> None:
    section, config = gpt(tmp_path)
    tokenizer = load_tokenizer(section)
    rows = Dataset.from_dict({"input_ids": [[1, 2], [], [3, 40, 4]] * 5000})
    config.vocab_size = 41  # fewer than the tokenizer has: the others do not occur
    check_token_ids(section, config, tokenizer, rows)
    config.vocab_size = 40
    word = tokenizer.convert_ids_to_tokens(40)
    with pytest.raises(ModelError, match=rf"'{word}' \(40\) is in the data.* end at 39"):
        check_token_ids(section, config, tokenizer, rows)
    check_token_ids(section, config, tokenizer, rows.select([0, 1]))
    check_token_ids(section, config, tokenizer, rows.select([]))
    check_token_ids(section, CanineConfig(), tokenizer, rows)  # reads characters
