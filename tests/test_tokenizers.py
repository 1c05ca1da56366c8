"""Tokenizers as published: DeBERTa v3 ships a sentencepiece model and no tokenizer.json."""

import json
from pathlib import Path

import sentencepiece
from transformers import DebertaV2Config

from dcft_cli.models import load_tokenizer
from dcft_cli.recipe import ModelSection


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
