"""Tiny tokenizers of the three common kinds, files of rows, and tasks of a user's own."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from dcft_cli.recipe import DataSection, TaskSection
from dcft_cli.tasks import LoadedTask, load_task
from tests.samples import write_rows

Write = Callable[..., str]
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"


def _fast(tokenizer: Tokenizer, cls: str, sep: str, **settings: Any) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, cls_token=cls, sep_token=sep, **settings
    )


def wordpiece() -> PreTrainedTokenizerFast:
    """Like BERT's: one token a letter, lower-cased, token types."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    pieces = [*special, *LETTERS, *(f"##{letter}" for letter in LETTERS), *".,!?'-"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = ["input_ids", "token_type_ids", "attention_mask"]
    settings = {"pad_token": "[PAD]", "unk_token": "[UNK]", "model_input_names": names}
    return _fast(tokenizer, "[CLS]", "[SEP]", **settings)


def byte_level() -> PreTrainedTokenizerFast:
    """Like RoBERTa's: one token a byte, two separators, no token types."""
    special = ["<s>", "<pad>", "</s>", "<unk>"]
    pieces = [*special, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = ["input_ids", "attention_mask"]
    return _fast(tokenizer, "<s>", "</s>", pad_token="<pad>", model_input_names=names)


def unigram() -> PreTrainedTokenizerFast:
    """Like DeBERTa-v3's: the space before a word belongs to its first token; pads on the left."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    words = ["▁the", "▁a", "▁of"]
    pieces = [(piece, -float(len(piece) == 1)) for piece in (*special, "▁", *LETTERS, *words)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=1))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    settings = {"pad_token": "[PAD]", "unk_token": "[UNK]", "padding_side": "left"}
    return _fast(tokenizer, "[CLS]", "[SEP]", **settings)


def rows(*labels: object) -> list[dict[str, object]]:
    return [{"text": f"text {number}", "label": label} for number, label in enumerate(labels)]


def load_own(
    kind: Any, path: str, labels: list[str] | None = None, task: Any = None, **data: Any
) -> LoadedTask:
    """Load `path` as the training and validation data of a user's own task."""
    section = DataSection(**{"train": path, "validation": path, **data})
    return load_task(TaskSection(type=kind, labels=labels, **(task or {})), section)


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return wordpiece()


@pytest.fixture(scope="session", params=[wordpiece, byte_level, unigram])
def any_tokenizer(request: pytest.FixtureRequest) -> PreTrainedTokenizerFast:
    return request.param()


@pytest.fixture
def jsonl(tmp_path: Path) -> Write:
    """Return a function that writes a jsonl file and returns its path."""
    return lambda rows, name="rows.jsonl": write_rows(tmp_path / name, rows)
