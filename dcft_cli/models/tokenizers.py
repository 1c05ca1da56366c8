"""Tokenizers of base models, ready for batches."""

from transformers import (
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from dcft_cli.errors import ModelError
from dcft_cli.models.loading import not_loaded, revision_of, source_of
from dcft_cli.recipe.schema import ModelSection


def load_tokenizer(section: ModelSection, *, offsets: bool = False) -> PreTrainedTokenizerBase:
    """The base model's own tokenizer.

    It pads on its own side: some models read a text's meaning off one end (XLNet off the last).

    Args:
        offsets: it must know where in the text its tokens come from (to find answers and words),
            and pads on the right.

    Raises:
        ModelError: there is none, it knows no offsets, or a package that it needs is missing.
    """
    source, revision = source_of(section.name), revision_of(section)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, revision=revision
        )
    except Exception as error:  # the tokenizers library raises nothing more special
        raise not_loaded("tokenizer", section, error) from error
    fast = isinstance(tokenizer, PreTrainedTokenizerFast)
    if offsets and not fast:
        raise ModelError(
            f"The tokenizer of {section.name} ({type(tokenizer).__name__}) is written in Python "
            "and keeps no character offsets, which this task needs.",
            "Use a model with a tokenizer.json.",
        )
    # Where there are no tokenizer files, transformers makes one that knows no word and no letter.
    ordinary = tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens)
    if fast and not any(letter.isalnum() for piece in ordinary for letter in piece):
        raise ModelError(
            f"There is no tokenizer in the base model {section.name}.",
            "Add one: AutoTokenizer.from_pretrained(NAME).save_pretrained(DIR).",
        )
    if offsets:
        tokenizer.padding_side = "right"  # where answers and words are found by position
    return tokenizer


def agree_on_padding(
    section: ModelSection, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Makes tokenizer and configuration pad with the same token.

    GPT and its kin never pad in pretraining, and name no such token or different ones. Models that
    read a text's last token find it by what the configuration says.

    Raises:
        ModelError: there is no token to pad with.
    """
    parts = {id(part): part for part in (config, config.get_text_config())}.values()
    if tokenizer.pad_token is None:
        named = [getattr(part, "pad_token_id", None) for part in parts]
        known = [n for n in named if isinstance(n, int) and 0 <= n < len(tokenizer)]
        tokenizer.pad_token = (
            str(tokenizer.convert_ids_to_tokens(known[0]))
            if known
            else tokenizer.eos_token or tokenizer.unk_token
        )
    if tokenizer.pad_token is None:
        raise ModelError(
            f"The tokenizer of {section.name} has no token to pad batches with.",
            "Give it one: tokenizer.pad_token = ..., then tokenizer.save_pretrained(DIR).",
        )
    for part in parts:
        part.pad_token_id = tokenizer.pad_token_id
