"""A tiny random model of every type with a sequence-classification class, and its inputs.

`tiny_config` is a rule: the size attributes of a configuration class, whatever they are called,
get small values, one layer of each kind is kept, and sub-configurations go the same way.
`EXCEPTIONS` holds what the rule cannot know.
"""

import dataclasses
from typing import Any

import torch
import transformers
from packaging.version import Version
from torch import Tensor
from transformers import CONFIG_MAPPING, PreTrainedConfig, PreTrainedModel
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES as SEQUENCE_CLASSES,
)

# Types whose checkpoints an early version of transformers cannot read back: as if not there.
MENDED: dict[str, str] = {"t5gemma2": "5.21"}
MODEL_TYPES: tuple[str, ...] = tuple(
    name
    for name in sorted(SEQUENCE_CLASSES)
    if Version(transformers.__version__) >= Version(MENDED.get(name, "0"))
)

UNBUILDABLE: dict[str, str] = {
    "layoutlmv2": "its visual backbone needs the detectron2 package",
}

LENGTH = 12
VOCABULARY = 100
# Of special tokens that a class leaves out, or sees beyond the tiny vocabulary.
TOKENS = {"bos": 0, "cls": 0, "eos": 2, "sep": 2, "pad": 3, "mask": 4, "image": 99, "video": 98}
FIRST_TOKEN, LAST_TOKEN = 10, 89  # ids of examples: special tokens lie below, image tokens above
HIDDEN, HEADS, GROUPS, HEAD = 32, 4, 2, 8
WIDE_HEAD = 16  # where heads together are wider or narrower than the model

# Four heads in two groups of keys, and no two sizes alike that are not alike in every model.
SIZES: dict[str, Any] = {
    **dict.fromkeys("hidden_size d_model n_embd dim emb_dim word_embed_proj_dim".split(), HIDDEN),
    **dict.fromkeys("embedding_size input_embedding_size entity_emb_size".split(), 16),
    **dict.fromkeys("output_embedding_size pronunciation_embed_dim shape_embed_dim".split(), 16),
    **dict.fromkeys(
        "num_hidden_layers n_layer n_layers num_layers num_decoder_layers encoder_layers "
        "decoder_layers depth".split(),
        2,
    ),
    **dict.fromkeys(
        "num_attention_heads n_head n_heads num_heads encoder_attention_heads "
        "decoder_attention_heads num_self_attention_heads num_cross_attention_heads "
        "n_mamba_heads index_n_heads linear_num_value_heads".split(),
        HEADS,
    ),
    **dict.fromkeys("num_key_value_heads linear_num_key_heads num_kv_heads".split(), GROUPS),
    **dict.fromkeys(
        "head_dim d_kv d_head kv_channels attention_head_size linear_key_head_dim "
        "index_head_dim qk_nope_head_dim".split(),
        HEAD,
    ),
    **dict.fromkeys("v_head_dim linear_value_head_dim".split(), 12),
    **dict.fromkeys("qk_rope_head_dim rotary_dim mamba_d_state mamba_dt_rank".split(), 4),
    "q_lora_rank": 20,
    "kv_lora_rank": 16,
    **dict.fromkeys(
        "intermediate_size ffn_dim encoder_ffn_dim decoder_ffn_dim d_ff d_inner n_inner dff "
        "hidden_dim feed_forward_size ffn_hidden_size".split(),
        44,
    ),
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
    **dict.fromkeys("num_experts num_local_experts n_routed_experts".split(), 4),
    **dict.fromkeys("num_experts_per_tok moe_topk".split(), 2),
    **dict.fromkeys("n_shared_experts n_group topk_group".split(), 1),
    "first_k_dense_replace": 1,
    **dict.fromkeys(
        "vocab_size n_words entity_vocab_size pronunciation_vocab_size shape_vocab_size "
        "num_hash_buckets".split(),
        VOCABULARY,
    ),
    **dict.fromkeys(
        "max_position_embeddings n_positions max_seq_len max_2d_position_embeddings".split(), 64
    ),
    **dict.fromkeys("coordinate_size shape_size".split(), 6),
    # Smaller than an example, or a sliding layer would be a full one.
    **dict.fromkeys("sliding_window window_size attention_window local_attention".split(), 4),
    "mamba_d_conv": 3,
    **dict.fromkeys("image_size input_size".split(), 16),
    "patch_size": 8,
    # Wide enough for a model of this width to tell two inputs apart.
    **dict.fromkeys(
        "initializer_range init_std embed_init_std initializer_std".split(), HIDDEN**-0.5
    ),
}

# An example has more blocks than a token looks at; with fewer they turn to full attention.
BLOCKS = {"block_size": 1, "num_random_blocks": 1}
MLA = {"num_key_value_heads": HEADS}  # every head has its own keys, from one narrow vector
VISION_TOKENS = 4  # of the 16 by 16 images in patches of 8

# What the rule cannot know. Sub-configurations are looked up here too, by their own type.
EXCEPTIONS: dict[str, dict[str, Any]] = {
    **dict.fromkeys("axk1 deepseek_v2 deepseek_v3 minicpm3 mistral4".split(), MLA),
    "big_bird": BLOCKS,
    "bigbird_pegasus": BLOCKS,
    "axk2": {**MLA, "index_topk": 4},
    "canine": {"local_transformer_stride": 8},
    # Its class says nothing about the positions of either kind of layer.
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
            for kind in ("sliding_attention", "full_attention")
        },
    },
    "convbert": {"conv_kernel_size": 3},
    # The defaults have no relative attention, the published models have.
    "deberta": {
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_biased_input": False,
    },
    "deberta-v2": {
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
    },
    "esmc": {"num_key_value_heads": HEADS},
    "funnel": {"block_sizes": (1, 1), "initializer_std": None},
    "gemma3": {"mm_tokens_per_image": VISION_TOKENS},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "layoutlmv3": {"coordinate_size": 4, "shape_size": 8},  # four and two of them: the width
    "lilt": {"hidden_size": 24, "channel_shrink_ratio": 2},  # the width holds six coordinates
    "markuplm": {
        "max_xpath_tag_unit_embeddings": 8,
        "max_xpath_subs_unit_embeddings": 8,
        "tag_pad_id": 6,
        "subs_pad_id": 7,
        "xpath_unit_hidden_size": 4,
        "max_depth": 3,
    },
    "minimax": {"block_size": 8},
    "mobilebert": {"intra_bottleneck_size": 16},
    "nystromformer": {"conv_kernel_size": 3},
    "perceiver": {"d_latents": 24, "num_latents": 6, "num_self_attends_per_block": 2},
    "phimoe": {"router_jitter_noise": 0.3},  # the router learns only from near ties
    "qwen3_5_vision": {"out_hidden_size": HIDDEN, "num_position_embeddings": VISION_TOKENS},
    "reformer": {
        "attn_layers": ["local", "lsh"],
        "axial_pos_shape": (3, 4),  # in training an example is as long as their product
        "axial_pos_embds_dim": (12, 20),
        "local_attn_chunk_length": 4,
        "lsh_attn_chunk_length": 4,
        "num_buckets": 2,
        "hash_seed": 0,
    },
    "smollm3": {"no_rope_layers": [1, 0]},
    "squeezebert": {"embedding_size": HIDDEN},
    "t5": {"decoder_start_token_id": 0},  # published configurations say it, the class does not
    "t5gemma2_encoder": {"mm_tokens_per_image": VISION_TOKENS},
    "xmod": {"default_language": "en_XX"},
    # What is shared is in two places.
    "zamba": {"layers_block_type": ["linear_attention", "hybrid", "hybrid"]},
    "zamba2": {"layers_block_type": ["linear_attention", "hybrid", "hybrid"], "chunk_size": 8},
}


def _own(default: PreTrainedConfig) -> dict[str, Any]:
    """The settings that make a configuration like `default` tiny."""
    names = {field.name for field in dataclasses.fields(default)}
    settings = {name: size for name, size in SIZES.items() if name in names}
    if not getattr(default, "sliding_window", None):
        settings.pop("sliding_window", None)
    for name in {"head_dim", "d_kv", "kv_channels"} & names:
        width = (getattr(default, name) or 0) * default.num_attention_heads
        if width not in (0, default.hidden_size):
            settings[name] = WIDE_HEAD
    for name, token in TOKENS.items():
        given = getattr(default, f"{name}_token_id", None)
        if f"{name}_token_id" in names and (not isinstance(given, int) or given >= FIRST_TOKEN):
            settings[f"{name}_token_id"] = token
    for name in ("layer_types", "layers_block_type", "mlp_layer_types"):
        if name in names and getattr(default, name):
            kinds = list(dict.fromkeys(getattr(default, name)))
            settings[name] = kinds * 2 if len(kinds) == 1 else kinds
    if "vision_use_head" in names:  # a choice of the model around it
        settings["vision_use_head"] = default.vision_use_head
    for name in default.sub_configs:
        below = getattr(default, name, None)
        if isinstance(below, PreTrainedConfig):
            settings[name] = _tiny(below)
    return settings


def _tiny(default: PreTrainedConfig, **settings: Any) -> PreTrainedConfig:
    chosen = {**_own(default), **EXCEPTIONS.get(default.model_type, {})}
    for name in ("layer_types", "layers_block_type"):
        if name in chosen:
            chosen["num_hidden_layers"] = len(chosen[name])
    return type(default)(**{**chosen, **settings})


def tiny_config(model_type: str, **settings: Any) -> PreTrainedConfig:
    return _tiny(CONFIG_MAPPING[model_type](), **settings)


def tiny_model(
    model_type: str,
    auto_class: str = "AutoModelForSequenceClassification",
    *,
    seed: int = 0,
    **settings: Any,
) -> PreTrainedModel:
    """A random model, the same at each call, in evaluation mode; the random state is kept."""
    config = tiny_config(model_type, **settings)
    if model_type == "funnel" and auto_class == "AutoModel":  # there are two of it
        config.architectures = ["FunnelModel"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = getattr(transformers, auto_class).from_config(config)
    return model.eval()


def example(
    model_type: str, config: PreTrainedConfig, *, batch: int = 2, length: int = LENGTH
) -> dict[str, Tensor]:
    """Random tokens with an end in every row; the last row is padded on the right."""
    text = config.get_text_config()
    generator = torch.Generator().manual_seed(length)
    ids = torch.randint(FIRST_TOKEN, LAST_TOKEN + 1, (batch, length), generator=generator)
    mask = torch.ones(batch, length, dtype=torch.long)
    mask[-1, -3:] = 0
    ends = mask.sum(1) - 1
    ids[range(batch), ends] = getattr(text, "eos_token_id", 2)
    ids[mask == 0] = getattr(text, "pad_token_id", 0)
    tokens = "inputs" if model_type == "perceiver" else "input_ids"
    if model_type == "longformer":  # to answer questions it wants three separators
        ids[:, 3:5] = text.eos_token_id
    inputs = {tokens: ids, "attention_mask": mask}
    if model_type in ("layoutlm", "lilt", "layoutlmv3"):
        corner = torch.randint(0, 20, (batch, length, 2), generator=generator)
        inputs["bbox"] = torch.cat([corner, corner + 10], dim=-1)
    if model_type == "tapas":
        inputs["token_type_ids"] = torch.zeros(batch, length, 7, dtype=torch.long)
    return inputs
