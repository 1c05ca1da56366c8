"""Tokenizers of base models, with a padding token."""

import pyarrow.compute as pc  # type: ignore[import-untyped]
from datasets import Dataset
from transformers import (
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from dcft_cli.errors import ModelError
from dcft_cli.models.loading import not_loaded, revision_of, source_of
from dcft_cli.models.remote_code import trusts_code
from dcft_cli.recipe.schema import ModelSection

_ROWS_AT_A_TIME = 10_000


def load_tokenizer(section: ModelSection, *, offsets: bool = False) -> PreTrainedTokenizerBase:
    """Load the base model's own tokenizer.

    Args:
        offsets: require character offsets, which locate answers and words.

    Raises:
        ModelError: there is no tokenizer, it has no offsets, or a package that it needs is missing.
    """
    source, trusted = source_of(section.name), trusts_code(section)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            source, revision=revision_of(section), trust_remote_code=trusted
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
    special = set(tokenizer.all_special_tokens)
    if fast and not any(map(str.isalnum, "".join(tokenizer.get_vocab().keys() - special))):
        raise ModelError(
            f"There is no tokenizer in the base model {section.name}.",
            "Add one: AutoTokenizer.from_pretrained(NAME).save_pretrained(DIR).",
        )
    return tokenizer


def agree_on_padding(
    section: ModelSection,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    model_class: str,
) -> None:
    """Make tokenizer and configuration pad with the same token, on the model's side, in place.

    GPT-like models never pad in pretraining: they name no padding token, or different ones. Those
    that classify by a text's last token find it by the configuration's padding token.

    Args:
        model_class: name of the transformers class, or auto class, of the task's model.

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
    size = embedding_count(config)
    if size is not None and tokenizer.pad_token_id >= size:
        raise _beyond(section, tokenizer, tokenizer.pad_token_id, size, "pads batches")
    for part in (config, config.get_text_config()):
        part.pad_token_id = tokenizer.pad_token_id
    # Padding on the left would shift the positions that models count from 0, and with them a
    # prediction, by what else is in its batch. XLNet counts none, and classifies by the last one.
    reads_last = config.model_type == "xlnet" and "ForSequenceClassification" in model_class
    tokenizer.padding_side = "left" if reads_last else "right"
    tokenizer.init_kwargs["padding_side"] = tokenizer.padding_side  # else it might not be saved


def embedding_count(config: PreTrainedConfig) -> int | None:
    """Return the number of token embeddings; None for a model of characters (Canine)."""
    return getattr(config.get_text_config(), "vocab_size", None)


def check_token_ids(
    section: ModelSection,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    features: Dataset,
) -> None:
    """Check that the model has an embedding for every token of encoded rows.

    A tokenizer may have more tokens than that, as long as the data does not use them.

    Args:
        features: with a column `input_ids`.

    Raises:
        ModelError: a token has none; names it.
    """
    if embedding_count(config) is None or not len(features):
        return
    for table in features.with_format("arrow").iter(_ROWS_AT_A_TIME):
        largest = pc.max(pc.list_flatten(table["input_ids"])).as_py()
        if largest is not None:
            check_token_id(section, config, tokenizer, largest)


def check_token_id(
    section: ModelSection,
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerBase,
    largest: int,
) -> None:
    """Check that the model has an embedding for a token of the data.

    Raises:
        ModelError: there is none; names the token.
    """
    size = embedding_count(config)
    if size is not None and largest >= size:
        raise _beyond(section, tokenizer, largest, size, "is in the data")


def _beyond(
    section: ModelSection, tokenizer: PreTrainedTokenizerBase, token: int, size: int, use: str
) -> ModelError:
    return ModelError(
        f"The tokenizer of {section.name} has more tokens than the model has embeddings: "
        f"{tokenizer.convert_ids_to_tokens(token)!r} ({token}) {use}, and the embeddings end at "
        f"{size - 1}.",
        "Use the model's own tokenizer, or add embeddings: model.resize_token_embeddings("
        f"{len(tokenizer)}), then save_pretrained.",
    )
