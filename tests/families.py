"""Tiny random models of several families, and configurations of published ones."""

from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedConfig, PreTrainedTokenizerFast

WORDS = (
    "the a cat dog sat ran on mat good bad film great awful movie plot was is not very who where "
    "what when did does in paris london lives born he she it answer question river tall"
).split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]

_BERT_LIKE = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 36,
    "max_position_embeddings": 80,
    "vocab_size": 128,
}
_ROBERTA_LIKE = {**_BERT_LIKE, "pad_token_id": 0}
FAMILIES = {
    "bert": ("BertConfig", _BERT_LIKE),
    "roberta": ("RobertaConfig", _ROBERTA_LIKE),
    "xlm-roberta": ("XLMRobertaConfig", _ROBERTA_LIKE),
    "camembert": ("CamembertConfig", _ROBERTA_LIKE),
    "electra": ("ElectraConfig", {**_BERT_LIKE, "embedding_size": 12}),
    "mpnet": ("MPNetConfig", {**_BERT_LIKE, "pad_token_id": 0}),
    "distilbert": (
        "DistilBertConfig",
        {
            "dim": 16,
            "n_layers": 2,
            "n_heads": 2,
            "hidden_dim": 36,
            "max_position_embeddings": 80,
            "vocab_size": 128,
        },
    ),
    # Like DeBERTa v3: relative positions, shared attention key, no token types.
    "deberta-v2": (
        "DebertaV2Config",
        {
            **_BERT_LIKE,
            "relative_attention": True,
            "position_buckets": 8,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_biased_input": False,
            "type_vocab_size": 0,
            "pooler_hidden_size": 16,
        },
    ),
}


def published(name: str) -> PreTrainedConfig:
    """Return a configuration with the sizes of a published model, from its paper."""
    deberta = {
        "vocab_size": 128100,
        "relative_attention": True,
        "position_buckets": 256,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
        "max_position_embeddings": 512,
    }

    def sizes(*numbers: int) -> dict[str, int]:
        names = ("num_hidden_layers", "hidden_size", "intermediate_size", "num_attention_heads")
        return dict(zip(names, numbers, strict=True))

    if name == "deberta-v3-base":
        return transformers.DebertaV2Config(
            **sizes(12, 768, 3072, 12), **deberta, pooler_hidden_size=768
        )
    if name == "deberta-v2-xxlarge":
        return transformers.DebertaV2Config(
            **sizes(48, 1536, 6144, 24), **deberta, pooler_hidden_size=1536, conv_kernel_size=3
        )
    assert name == "roberta-large"
    return transformers.RobertaConfig(
        **sizes(24, 1024, 4096, 16), vocab_size=50265, max_position_embeddings=514
    )


def config_of(family: str, **settings: object) -> PreTrainedConfig:
    """Return the tiny configuration of a family."""
    name, sizes = FAMILIES[family]
    return getattr(transformers, name)(**{**sizes, **settings})


def tiny_model(
    family: str = "bert", task: str = "SequenceClassification", **settings: object
) -> transformers.PreTrainedModel:
    """Return a random model with its task head, the same at every call, in evaluation mode."""
    torch.manual_seed(0)
    auto = getattr(transformers, f"AutoModelFor{task}")
    return auto.from_config(config_of(family, **settings)).eval()


def tiny_tokenizer(**settings: object) -> PreTrainedTokenizerFast:
    """Return a word-piece tokenizer of a few dozen words and all ASCII characters."""
    letters = [chr(c) for c in range(33, 127) if not chr(c).isupper()]
    pieces = SPECIAL + WORDS + letters
    vocabulary = {piece: number for number, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
        **settings,
    )


def save_base(folder: Path, family: str = "bert", **settings: object) -> Path:
    """Save an encoder as on the Hub: weights without a task head, and a tokenizer."""
    torch.manual_seed(0)
    transformers.AutoModel.from_config(config_of(family, **settings)).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tokens(seed: int = 0, batch: int = 3, length: int = 10) -> dict[str, torch.Tensor]:
    """Return a padded batch of random token ids."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(5, 60, (batch, length), generator=generator)
    mask = torch.ones_like(ids)
    mask[0, length // 2 :] = 0
    return {"input_ids": ids.masked_fill(mask == 0, 0), "attention_mask": mask}
