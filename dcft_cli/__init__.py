"""DCFT: fine-tune Hugging Face encoders by deconvolution in a subspace (arXiv 2503.01419).

The command is `dcft`. To predict with what it trained:

    predictor = dcft_cli.load("runs/tickets")
    predictor(["My card was charged twice."])

For a training loop of your own:

    from dcft_cli import DCFTConfig, inject, save_adapter, load_adapter, merge

Importing this package imports no torch until one of these names is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dcft_cli.adapter.adapter import DCFTAdapter
    from dcft_cli.adapter.config import DCFTConfig
    from dcft_cli.adapter.initialization import start_from_gradient
    from dcft_cli.adapter.inject import adapter_layers, inject, remove_adapters
    from dcft_cli.adapter.layer import DCFTLinear
    from dcft_cli.adapter.merge import merge, merged
    from dcft_cli.adapter.orthogonality import orthogonality
    from dcft_cli.adapter_file.write import save_adapter
    from dcft_cli.methods.load import load_adapter
    from dcft_cli.prediction.predictor import Predictor, load
    from dcft_cli.serving.model import DCFTModel

__version__ = "0.1.0"

_HOMES = {
    "DCFTConfig": "dcft_cli.adapter.config",
    "adapter_layers": "dcft_cli.adapter.inject",
    "merged": "dcft_cli.adapter.merge",
    "DCFTAdapter": "dcft_cli.adapter.adapter",
    "DCFTLinear": "dcft_cli.adapter.layer",
    "DCFTModel": "dcft_cli.serving.model",
    "Predictor": "dcft_cli.prediction.predictor",
    "inject": "dcft_cli.adapter.inject",
    "load": "dcft_cli.prediction.predictor",
    "load_adapter": "dcft_cli.methods.load",
    "merge": "dcft_cli.adapter.merge",
    "orthogonality": "dcft_cli.adapter.orthogonality",
    "remove_adapters": "dcft_cli.adapter.inject",
    "save_adapter": "dcft_cli.adapter_file.write",
    "start_from_gradient": "dcft_cli.adapter.initialization",
}

__all__ = [
    "DCFTAdapter",
    "DCFTConfig",
    "DCFTLinear",
    "DCFTModel",
    "Predictor",
    "adapter_layers",
    "inject",
    "load",
    "load_adapter",
    "merge",
    "merged",
    "orthogonality",
    "remove_adapters",
    "save_adapter",
    "start_from_gradient",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
