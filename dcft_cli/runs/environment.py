"""What a bug report needs to say: versions, devices, caches and variables."""

import os
import platform
import shutil
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HUB_CACHE

from dcft_cli import __version__
from dcft_cli.data.cache_folder import cache_folder

_PACKAGES = (
    "torch", "transformers", "accelerate", "datasets", "huggingface-hub", "tokenizers",
    "safetensors", "numpy", "pyarrow", "scikit-learn", "pydantic", "typer", "rich",
    "bitsandbytes", "peft", "onnxruntime", "optuna",
)  # fmt: skip
# No others: variables may hold tokens, and addresses with passwords.
_VARIABLES = (
    "HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HOME", "HF_HUB_CACHE",
    "DCFT_CACHE", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "TOKENIZERS_PARALLELISM",
)  # fmt: skip


@dataclass(frozen=True)
class Folder:
    """A folder that dcft writes to: its path, None if unused, and the free bytes of its disk."""

    path: str | None
    free_bytes: int | None


@dataclass(frozen=True)
class Environment:
    """The installation and the machine.

    Attributes:
        versions: of dcft, Python and packages; None for those that are not installed.
        devices: as torch sees them.
        cores, threads: processor cores, and threads that torch uses.
        folders: current folder and caches.
        variables: those that are set and change what dcft does.
    """

    versions: dict[str, str | None]
    system: str
    devices: list[str]
    cores: int | None
    threads: int | None
    folders: dict[str, Folder]
    variables: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return the environment as plain data."""
        return asdict(self)


def describe_environment() -> Environment:
    """Look at the installation and the machine."""
    devices, threads = _devices()
    return Environment(
        versions={
            "dcft": __version__,
            "python": platform.python_version(),
            **{package: _version(package) for package in _PACKAGES},
        },
        system=platform.platform(),
        devices=devices,
        cores=os.cpu_count(),
        threads=threads,
        folders={
            "current folder": _folder(Path.cwd()),
            "models": _folder(Path(HF_HUB_CACHE)),
            "encoded rows": _folder(cache_folder()),
        },
        variables={name: os.environ[name] for name in _VARIABLES if name in os.environ},
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _devices() -> tuple[list[str], int | None]:
    """Return the names of all devices, and the number of threads."""
    try:
        import torch
    except Exception as error:  # a broken installation is what a report is about
        return [f"none: torch cannot be imported ({error})"], None
    devices = [
        f"{torch.cuda.get_device_name(number)} (cuda:{number}, CUDA {torch.version.cuda})"
        for number in range(torch.cuda.device_count())
    ]
    if torch.backends.mps.is_available():
        devices.append("Apple GPU (mps)")
    return [*devices, f"CPU ({torch.backends.cpu.get_cpu_capability()})"], torch.get_num_threads()


def _folder(path: Path | None) -> Folder:
    if path is None:
        return Folder(None, None)
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return Folder(str(path), shutil.disk_usage(there).free)
