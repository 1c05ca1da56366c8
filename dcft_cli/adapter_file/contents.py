"""What an adapter file holds, without torch."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from dcft_cli.adapter.config import DCFTConfig
from dcft_cli.adapter_file.about import About
from dcft_cli.adapter_file.description import first_problem
from dcft_cli.adapter_file.spec import Module
from dcft_cli.errors import AdapterFileError

Array = NDArray[np.float32]

_MOST_VALUES = 1 << 24  # float64 values held for a norm; a large layer takes 2^20


@dataclass(frozen=True)
class Contents(ABC):
    """A whole, checked adapter file of any method.

    Attributes:
        method: its name, as in a recipe's `adapter.method`.
        modules: the adapted weights; empty if the method has no targets.
        dtype: of the values in the file, "float32" or "bfloat16"; here they are float32.
        head: tensors trained in addition to the adapter, by parameter name.
        fixed: names of parameters that the base lacks and that were not trained: matrices are
            the identity, vectors zero.
        base: name, revision and fingerprint of the base model (strings or None).
        model: "class", "labels" and "problem_type" of the model that was trained.
        info: what the trainer of the adapter wrote about task, labels and data.
        versions: of the libraries that wrote the file.
    """

    path: Path
    file_bytes: int
    format_version: int
    method: str
    modules: tuple[Module, ...]
    dtype: str
    head: Mapping[str, Array]
    fixed: frozenset[str]
    base: Mapping[str, str | None]
    model: Mapping[str, Any]
    info: Mapping[str, Any]
    versions: Mapping[str, str]

    @property
    def not_in_base(self) -> frozenset[str]:
        """Return the names of the parameters whose values the file decides, not the base."""
        return self.fixed | frozenset(self.head)

    def about(self) -> About:
        """Return what dcft reads in `info`, checked.

        Raises:
            AdapterFileError: `info` has something else there.
        """
        try:
            return About.model_validate(dict(self.info))
        except ValidationError as error:
            raise AdapterFileError(
                f"{self.path} describes its task in another way than `dcft train` "
                f"(info.{first_problem(error)}).",
                "Use it in Python: load_adapter(model, path).",
            ) from error

    @property
    @abstractmethod
    def adapter_parameters(self) -> int:
        """Return the number of trained values without the head, as published counts do."""

    @property
    def head_parameters(self) -> int:
        """Return the number of trained values outside the adapter."""
        return sum(tensor.size for tensor in self.head.values())


@dataclass(frozen=True)
class BaselineContents(Contents):
    """The file of a method other than DCFT.

    Attributes:
        settings: of the method, as in a recipe's adapter section.
        seed: of the initial values that are not in the file.
        trained: number of trained values without the head.
        tensors: of the method, by name in the model with the method attached.
    """

    settings: Mapping[str, Any]
    seed: int
    trained: int
    tensors: Mapping[str, Array]

    @property
    def adapter_parameters(self) -> int:
        """Return the number of trained values without the head."""
        return self.trained

    def check_tensors(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Raise AdapterFileError if the tensors are not those of these names and shapes."""
        found = {name: tensor.shape for name, tensor in self.tensors.items()}
        if different := sorted(
            name for name in found.keys() | shapes.keys() if found.get(name) != shapes.get(name)
        ):
            name = different[0]
            raise AdapterFileError(
                f"{self.path} does not fit this model: {len(different)} tensors differ; {name} "
                f"is {found.get(name, 'missing')} in the file, {shapes.get(name, 'missing')} here.",
                f"It was trained on {self.base['name'] or 'another base model'}.",
            )


@dataclass(frozen=True)
class AdapterContents(Contents):
    """A DCFT adapter file.

    Attributes:
        config: what was inserted in the modules.
        factors: A, B and C of each module, by module name.
    """

    config: DCFTConfig
    factors: Mapping[str, Mapping[str, Array]]

    @property
    def adapter_parameters(self) -> int:
        """Return the number of trained values without the head, as published counts do."""
        return sum(module.parameters(self.config) for module in self.modules)

    def delta_norm(self, module: Module) -> float | None:
        """Compute the Frobenius norm of a module's dW; of a whole stack where there is one.

        None if that takes hundreds of megabytes: a small file can describe a huge module.
        """
        d, s, k = self.config.kernel_size, self.config.effective_stride, self.config.rank
        windows = k * d * (module.in_features + module.out_features + 2 * d)  # of both sides
        if windows + 2 * (k * d) ** 2 > _MOST_VALUES:
            return None
        A, B, C = (self.factors[module.name][f].astype(np.float64) for f in "ABC")
        total = 0.0
        for a, b, c in zip(*(f.reshape(-1, *f.shape[-2:]) for f in (A, B, C)), strict=True):
            down = _place_windows(a, d, s, module.in_features).reshape(-1, module.in_features)
            up = np.einsum("kno,nm->okm", _place_windows(b.T, d, s, module.out_features), c)
            up = up.reshape(module.out_features, -1)
            # ||B' A'||_F^2 = <B'^T B', A' A'^T>: small matrices only.
            total += max(float(np.sum((up.T @ up) * (down @ down.T))), 0.0)
        return self.config.scale * math.sqrt(total)


def _place_windows(
    factor: NDArray[np.float64], kernel_size: int, stride: int, size: int
) -> NDArray[np.float64]:
    """Compute `functional.place_windows` in numpy: (k, n) to (k, d, size)."""
    k, n = factor.shape
    result = np.zeros((k, kernel_size, (n - 1) * stride + kernel_size))
    for m in range(kernel_size):
        result[:, m, m : m + (n - 1) * stride + 1 : stride] = factor
    return result[..., :size]
