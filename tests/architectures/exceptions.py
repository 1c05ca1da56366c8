"""What sets single types of models apart, with reasons; docs/architectures.md prints them."""

# Roles that a type does not have.
NO_ROLE: dict[str, tuple[str, ...]] = {"fnet": ("Q", "K", "V", "O")}
WITHOUT_ROLES: dict[str, str] = {
    "fnet": "mixes tokens by a Fourier transform: there is no attention to project for",
}

# Types with layers that no text classification's loss depends on: those get no adapter.
UNREACHED: dict[str, str] = {
    "canine": "the final character encoder is not on the way to the pooled output",
    "longformer": "the first token attends through the `_global` projections, so the others of "
    "the last layer do not matter to a sequence's class",
    "mra": "without its CUDA kernel the attention returns zeros",
}

# The same for the losses of token classification and question answering.
UNREACHED_BY_TOKENS: dict[str, str] = {
    "longformer": "no token attends through the `_global` projections",
    "mra": UNREACHED["mra"],
}
UNREACHED_BY_ANSWERS: dict[str, str] = {"mra": UNREACHED["mra"]}

# Types that run backward in training mode alone.
ONLY_TRAINS: dict[str, str] = {
    "reformer": "its layers are reversible, and go backward in training mode alone",
}

# Types whose kind does not follow from transformers' lists of classes.
KINDS: dict[str, tuple[str, str]] = {
    "mistral4": ("decoder", "listed with models that read images as well"),
    "xlnet": ("encoder", "learned to predict words one by one; a classifier of it looks both ways"),
}

# What else a reader of the page should know, with the types that it is true of.
NOTES: dict[str, tuple[str, ...]] = {
    "it trains on inputs of one length alone, to which `dcft train` does not pad: train it in "
    "[a loop of your own](python.md)": ("reformer",),
    "its layers are one and the same, run again and again; so is their adapter": ("albert",),
    "also for images; the layers that read those get no adapter": (
        "gemma3",
        "modernvbert",
        "qwen3_5",
        "t5gemma2",
        "ultravbert",
    ),
    "the decoder attends to itself and to the encoder in one attention": ("t5gemma2",),
    "with `multi_query=False`, Q, K and V are interleaved: together only": ("gpt_bigcode",),
    "without `q_lora_rank`, Q is `self_attn.q_proj` alone": (
        "deepseek_v2",
        "deepseek_v3",
        "minicpm3",
        "mistral4",
    ),
    "Mamba layers have no roles: name their layers by patterns": ("jamba", "zamba", "zamba2"),
    "token classification takes the encoder alone, which may be a checkpoint of its own": (
        "mt5",
        "t5",
        "umt5",
    ),
    "gated versions (1.1, Flan) have `DenseReluDense.{wi_0, wi_1}`": ("t5",),
}

# Types whose logits are not those of a linear layer: their heads start at random.
NOT_FITTED = {"eurobert": "its logits are the mean of what its last layer says of every token"}
