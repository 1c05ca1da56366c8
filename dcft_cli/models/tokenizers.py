"""Tokenizers of base models, with a padding token."""

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
    """Load the base model's own tokenizer.

    It keeps its padding side, since some models classify by a text's last token (XLNet).

    Args:
        offsets: require character offsets, which locate answers and words, and pad on the right.

    Raises:
        ModelError: there is no tokenizer, it has no offsets, or a package that it needs is missing.
    """
    source, revision = source_of(section.name), revision_of(section)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, revision=revision
        )
    except Exception as error:  # the tokenizers library raises nothing more specific
        raise not_loaded("tokenizer", section, error) from error
    fast = isinstance(tokenizer, PreTrainedTokenizerFast)
    if offsets and not fast:
        raise ModelError(
            f"The tokenizer of {section.name} ({type(tokenizer).__name__}) is written in Python "
            "and has no character offsets, which this task needs.",
            "Use a model with a tokenizer.json.",
        )
    # Without tokenizer files, transformers creates a tokenizer that has no word and no letter.
    ordinary = tokenizer.get_vocab().keys() - set(tokenizer.all_special_tokens)
    if fast and not any(letter.isalnum() for piece in ordinary for letter in piece):
        raise ModelError(
            f"There is no tokenizer in the base model {section.name}.",
            "Add one: AutoTokenizer.from_pretrained(NAME).save_pretrained(DIR).",
        )
    if offsets:
        tokenizer.padding_side = "right"  # answers and words are found by token position
    return tokenizer


def agree_on_padding(
    section: ModelSection, config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase
) -> None:
    """Make tokenizer and configuration use the same padding token, in place.

    GPT-like models never pad in pretraining: they name no padding token, or different ones. Those
    that classify by a text's last token find it by the configuration's padding token.

    Raises:
        ModelError: there is no token to pad with.
    """
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    if tokenizer.pad_token is None:
        raise ModelError(
            f"The tokenizer of {section.name} has no token to pad batches with.",
            "Set one: tokenizer.pad_token = ..., then tokenizer.save_pretrained(DIR).",
        )
    for part in (config, config.get_text_config()):
        part.pad_token_id = tokenizer.pad_token_id
