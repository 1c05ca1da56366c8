"""Exceptions for single model types, with reasons; docs/architectures.md prints them."""

# Roles that a type does not have.
NO_ROLE: dict[str, tuple[str, ...]] = {"fnet": ("Q", "K", "V", "O")}
WITHOUT_ROLES: dict[str, str] = {
    "fnet": "mixes tokens by a Fourier transform and has no attention",
}

# Types with layers that cannot affect the loss of a text classification: they get no adapter.
UNREACHED: dict[str, str] = {
    "canine": "the pooled output does not depend on the final character encoder",
    "longformer": "the class depends on the first token only, which attends through the `_global` "
    "projections, not through the other ones of the last layer",
    "mra": "without its CUDA kernel the attention returns zeros",
}

# The same for the losses of token classification and question answering.
UNREACHED_BY_TOKENS: dict[str, str] = {
    "longformer": "no token attends through the `_global` projections",
    "mra": UNREACHED["mra"],
}
UNREACHED_BY_ANSWERS: dict[str, str] = {"mra": UNREACHED["mra"]}

# Types whose classification of a text depends on the padding beside it, on either side.
_SPARSE = "in block-sparse attention (of long texts), what a token sees depends on the padding"
_ENDS_LATE = "the last token is read only where padding follows it"
SEES_PADDING: dict[str, str] = {
    "big_bird": _SPARSE,
    "bigbird_pegasus": _SPARSE,
    "canine": "it joins blocks of characters, and the last one has padding in it",
    "convbert": "its convolutions mix a token with its neighbors, padding too",
    "fnet": "its Fourier transform mixes all tokens, padding too",
    "nystromformer": "its landmarks are means over parts of a text with its padding",
    "t5gemma": _ENDS_LATE,
    "t5gemma2": _ENDS_LATE,
    "yoso": "its code in transformers does not apply the attention mask",
}

# Types whose backward pass runs only in training mode.
ONLY_TRAINS: dict[str, str] = {
    "reformer": "its layers are reversible, and their backward pass runs only in training mode",
}

# Types whose kind does not follow from transformers' lists of classes.
KINDS: dict[str, tuple[str, str]] = {
    "mistral4": ("decoder", "listed with models that read images as well"),
    "xlnet": (
        "encoder",
        "predicts one word at a time in pretraining, but a classifier sees all words",
    ),
}

# Other remarks for readers of the page, with the types they apply to.
NOTES: dict[str, tuple[str, ...]] = {
    "it trains only on inputs of one fixed length, to which `dcft train` does not pad: train it in "
    "[a custom loop](python.md)": ("reformer",),
    "one layer is applied repeatedly, and so is its adapter": ("albert",),
    "also reads images; the layers for those get no adapter": (
        "gemma3",
        "modernvbert",
        "qwen3_5",
        "t5gemma2",
        "ultravbert",
    ),
    "the decoder attends to itself and to the encoder in one attention": ("t5gemma2",),
    "with `multi_query=False`, Q, K and V are interleaved: only together": ("gpt_bigcode",),
    "without `q_lora_rank`, Q is `self_attn.q_proj` only": (
        "deepseek_v2",
        "deepseek_v3",
        "minicpm3",
        "mistral4",
    ),
    "Mamba layers have no roles: select them by patterns": ("jamba", "zamba", "zamba2"),
    "token classification uses only the encoder, which may be a separate checkpoint": (
        "mt5",
        "t5",
        "umt5",
    ),
    "gated versions (1.1, Flan) have `DenseReluDense.{wi_0, wi_1}`": ("t5",),
}

# Types whose logits are not those of a linear layer: their heads start at random.
NOT_FITTED = {"eurobert": "its logits are the mean over all tokens of its last layer's outputs"}
