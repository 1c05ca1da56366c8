"""Models unlike BERT: trained from a recipe, merged, and loaded by transformers."""

from pathlib import Path

import pytest
import torch
import transformers
from tokenizers.processors import TemplateProcessing

from dcft_cli.merging.merge import merge
from dcft_cli.models.loading import load_config, load_model
from dcft_cli.models.tokenizers import agree_on_padding, load_tokenizer
from dcft_cli.recipe import ModelSection, load_recipe
from tests.architectures.tiny import tiny_config
from tests.families import tiny_tokenizer, tokens
from tests.jobs import recipe, train
from tests.samples import write_rows

# Layers that each has, by role, for the default targets of a recipe.
CLASSIFIERS = {
    "modernbert": {"Q": 2, "K": 2, "V": 2, "O": 2, "FFN_IN": 2, "FFN_OUT": 2},
    "albert": {"Q": 1, "K": 1, "V": 1, "O": 1, "FFN_IN": 1, "FFN_OUT": 1},
    "xlnet": {"Q": 2, "K": 2, "V": 2, "O": 2, "FFN_IN": 2, "FFN_OUT": 2},
    "funnel": {"Q": 2, "K": 2, "V": 2, "O": 2, "FFN_IN": 2, "FFN_OUT": 2},
    "longformer": {"Q": 3, "K": 3, "V": 3, "O": 2, "FFN_IN": 2, "FFN_OUT": 2},
    "big_bird": {"Q": 2, "K": 2, "V": 2, "O": 2, "FFN_IN": 2, "FFN_OUT": 2},
    "t5": {"Q": 4, "K": 4, "V": 4, "O": 4, "FFN_IN": 4, "FFN_OUT": 4},
    "mt5": {"Q": 4, "K": 4, "V": 4, "O": 4, "FFN_IN": 8, "FFN_OUT": 4},
    "bart": {"Q": 4, "K": 4, "V": 4, "O": 4, "FFN_IN": 4, "FFN_OUT": 4},
    "gpt2": {"Q": 2, "K": 2, "V": 2, "O": 2, "FFN_IN": 2, "FFN_OUT": 2},
    "qwen3": {"Q": 2, "K": 2, "V": 2, "O": 2, "FFN_IN": 4, "FFN_OUT": 2},
    "deberta": {"Q+K+V": 2, "O": 2, "FFN_IN": 2, "FFN_OUT": 2},
    "squeezebert": {"Q": 2, "K": 2, "V": 2, "O": 2, "FFN_IN": 2, "FFN_OUT": 2},
}
WITHOUT_PADDING = ("gpt2", "qwen3")
LEFT_OUT = {"longformer": 3}
HEAD = "AutoModelForSequenceClassification"
ENDS = ("bart",)  # it reads a text's meaning off the one end in it


def save_any(folder: Path, model_type: str, cls: str = "AutoModel") -> Path:
    """A base as it is published: with its tokenizer, without a head."""
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = "[SEP]"
    settings = {"vocab_size": 128, "pad_token_id": tokenizer.pad_token_id, "eos_token_id": 3}
    if model_type in WITHOUT_PADDING:
        tokenizer.pad_token = settings["pad_token_id"] = None
    config = tiny_config(model_type, **settings)
    if model_type == "funnel":
        config.architectures = ["FunnelModel"]
    torch.manual_seed(0)
    auto = getattr(transformers, cls)
    model = auto.from_config(config) if cls == "AutoModel" else auto(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.mark.parametrize("model_type", CLASSIFIERS)
def test_classification(model_type: str, tmp_path: Path) -> None:
    base = save_any(tmp_path / "base", model_type)
    settings = ("adapter.kernel_size=5", "model.classifier_dropout=null")  # not all have one
    job = train(recipe("rte", tmp_path, base, *settings), tmp_path / "run")
    roles = [adapter.target.role for adapter in job.layers]
    assert {role: roles.count(role) for role in roles} == CLASSIFIERS[model_type]
    left_out = [note for note in job.watcher.notes if "do not affect this task's loss" in note]
    assert len(left_out) == (model_type in LEFT_OUT)
    assert all(note.startswith(f"{LEFT_OUT[model_type]} layers") for note in left_out)
    result = merge(str(base), str(job.folder), str(tmp_path / "merged"))
    assert result.difference <= 1e-5
    plain = getattr(transformers, result.model_class).from_pretrained(result.folder).eval()
    inputs = tokens()
    inputs["input_ids"][0, 4] = inputs["input_ids"][1:, -1] = 3  # the ends that BART looks for
    with torch.no_grad():
        expected = job.model.eval()(**inputs).logits
        assert torch.allclose(plain(**inputs).logits, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("model_type", "cls"),
    [
        ("t5", "T5EncoderModel"),
        ("mt5", "MT5EncoderModel"),
        ("modernbert", "AutoModel"),
        ("qwen3", "AutoModel"),
    ],
)
def test_labels_for_words(model_type: str, cls: str, tmp_path: Path) -> None:
    base = save_any(tmp_path / "base", model_type, cls)
    settings = ("adapter.kernel_size=5", "training.max_steps=4")
    job = train(recipe("token_classification", tmp_path, base, *settings), tmp_path / "run")
    result = merge(str(base), str(job.folder), str(tmp_path / "merged"))
    assert result.difference <= 1e-5
    assert result.model_class.endswith("ForTokenClassification")
    assert {"f1", "precision", "recall", "accuracy"} <= job.metrics["metrics"].keys()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("model_type", CLASSIFIERS)
def test_padding_does_not_change_an_answer(model_type: str, side: str, tmp_path: Path) -> None:
    """A text gives the same logits padded next to a longer one, whatever its tokenizer says."""
    folder = save_any(tmp_path / "base", model_type)
    section = ModelSection(name=str(folder))
    tokenizer, config = load_tokenizer(section), load_config(section)
    tokenizer.padding_side = side
    agree_on_padding(section, config, tokenizer, HEAD)
    model = load_model(section, config, HEAD).model.eval()
    texts = ["the film was good", "the cat sat on the mat and the dog ran in paris"]
    if model_type in ENDS:
        texts = [f"{text} [SEP]" for text in texts]
    settings = {
        "return_tensors": "pt",
        "padding": True,
        "add_special_tokens": model_type not in ENDS,
    }
    with torch.no_grad():
        single = model(**tokenizer(texts[:1], **settings)).logits[0]
        padded = model(**tokenizer(texts, **settings)).logits[0]
    torch.testing.assert_close(single, padded, rtol=0, atol=1e-5)


def test_rows_of_one_token_do_not_exclude_layers(tmp_path: Path) -> None:
    """Where there is nothing to attend to, queries and keys have no gradient."""
    base = save_any(tmp_path / "base", "gpt2")
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A", pair="$A $B")
    tokenizer.save_pretrained(base)
    rows = [{"text": word, "label": number % 2} for number, word in enumerate(["good", "bad"] * 4)]
    rows += [{"text": "the film was very good", "label": 1}]
    loaded = load_recipe(
        "recipes/sst2.yaml",
        [
            f"model.name={base}",
            "task={type: classification, labels: [a, b]}",
            "data={text: [text], label: label}",
            f"data.train={write_rows(tmp_path / 'train.jsonl', rows)}",
            "training.device=cpu",
            "training.max_steps=1",
            "training.eval_steps=null",
        ],
    )
    job = train(loaded, tmp_path / "run")
    assert {"Q", "K", "V"} <= {adapter.target.role for adapter in job.layers}
    assert not [note for note in job.watcher.notes if "do not affect" in note]
