"""Tokenizers as published, and those that are not there or lack something."""

import json
import shutil
from pathlib import Path

import pytest
import sentencepiece
from transformers import CanineConfig, CanineTokenizer, DebertaV2Config, GPT2Config

from dcft_cli.errors import ModelError
from dcft_cli.recipe import ModelSection
from dcft_cli.tokenizers import agree_on_padding, load_tokenizer
from tests.families import FAMILIES, save_base, tiny_tokenizer


def test_sentencepiece_model_alone_is_enough(tmp_path: Path) -> None:
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
def test_a_folder_without_a_tokenizer(family: str, tmp_path: Path) -> None:
    """Not a tokenizer that knows no word, as transformers makes up for some families."""
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


def test_without_a_padding_token_the_end_of_a_text_pads(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.pad_token = None
    tokenizer.eos_token = "[SEP]"
    GPT2Config(vocab_size=128).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = load_tokenizer(ModelSection(name=str(tmp_path)))
    assert (loaded.pad_token, loaded.padding_side) == ("[SEP]", "right")
    config = GPT2Config()
    agree_on_padding(config, loaded)
    assert config.pad_token_id == tokenizer.eos_token_id
    config = GPT2Config(pad_token_id=7)
    agree_on_padding(config, loaded)
    assert config.pad_token_id == 7


def test_a_tokenizer_in_python_serves_where_no_offsets_are_needed(tmp_path: Path) -> None:
    CanineConfig().save_pretrained(tmp_path)
    CanineTokenizer().save_pretrained(tmp_path)
    section = ModelSection(name=str(tmp_path))
    assert load_tokenizer(section)("film").input_ids[1:-1] == [ord(letter) for letter in "film"]
    with pytest.raises(ModelError, match="no character offsets"):
        load_tokenizer(section, offsets=True)
