"""A base model that brings code of its own: an encoder, its configuration, and its tokenizer."""

import json
from pathlib import Path

from tests.families import config_of, tiny_model, tiny_tokenizer

_CONFIGURATION = """
from pathlib import Path
from transformers import BertConfig
Path({marker!r}).mkdir(exist_ok=True)
class OwnConfig(BertConfig):
    model_type = "own-bert"
"""
_MODELING = """
from pathlib import Path
from transformers import BertForSequenceClassification, BertModel
from .configuration_own import OwnConfig
Path({marker!r}).mkdir(exist_ok=True)
class OwnModel(BertModel):
    config_class = OwnConfig
class OwnForSequenceClassification(BertForSequenceClassification):
    config_class = OwnConfig
"""
_TOKENIZATION = """
from pathlib import Path
from transformers import PreTrainedTokenizerFast
Path({marker!r}).mkdir(exist_ok=True)
class OwnTokenizer(PreTrainedTokenizerFast):
    pass
"""


def save_own_base(folder: Path, marker: Path, *, known: bool = False) -> Path:
    """Save a base whose code makes the folder `marker` when it is run.

    Args:
        known: whether transformers has classes for it too.
    """
    config = config_of("bert")
    tiny_model().bert.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    sources = {
        "configuration_own": _CONFIGURATION,
        "modeling_own": _MODELING,
        "tokenization_own": _TOKENIZATION,
    }
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source.format(marker=str(marker)))
    classes = {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModel": "modeling_own.OwnModel",
        "AutoModelForSequenceClassification": "modeling_own.OwnForSequenceClassification",
    }
    own = {"auto_map": classes} | ({} if known else {"model_type": "own-bert"})
    (folder / "config.json").write_text(json.dumps(config.to_dict() | own))
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    if not known:
        settings["tokenizer_class"] = "OwnTokenizer"
    settings["auto_map"] = {"AutoTokenizer": [None, "tokenization_own.OwnTokenizer"]}
    file.write_text(json.dumps(settings))
    return folder
