"""DCFT: fine-tune Hugging Face encoders by deconvolution in a subspace (arXiv 2503.01419).

The command is `dcft`. For a training loop of your own:

    from dcft_cli import DCFTConfig, inject, save_adapter, load_adapter, merge

Importing this package imports no torch until one of these names is used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dcft_cli.adapter.config import DCFTConfig
    from dcft_cli.adapter.initialization import start_from_gradient
    from dcft_cli.adapter.inject import adapter_layers, inject, merge, remove_adapters
    from dcft_cli.adapter.merge import folded
    from dcft_cli.adapter.orthogonality import orthogonality
    from dcft_cli.adapter_file.load import load_adapter
    from dcft_cli.adapter_file.write import save_adapter
    from dcft_cli.attention import set_attention

__version__ = "0.1.0"

_HOMES = {
    "DCFTConfig": "dcft_cli.adapter.config",
    "adapter_layers": "dcft_cli.adapter.inject",
    "folded": "dcft_cli.adapter.merge",
    "inject": "dcft_cli.adapter.inject",
    "load_adapter": "dcft_cli.adapter_file.load",
    "merge": "dcft_cli.adapter.inject",
    "orthogonality": "dcft_cli.adapter.orthogonality",
    "remove_adapters": "dcft_cli.adapter.inject",
    "save_adapter": "dcft_cli.adapter_file.write",
    "set_attention": "dcft_cli.attention",
    "start_from_gradient": "dcft_cli.adapter.initialization",
}

__all__ = [
    "DCFTConfig",
    "adapter_layers",
    "folded",
    "inject",
    "load_adapter",
    "merge",
    "orthogonality",
    "remove_adapters",
    "save_adapter",
    "set_attention",
    "start_from_gradient",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
