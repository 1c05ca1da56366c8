"""The protocol of a fine-tuning method: attach, train, save, load, merge."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from dcft_cli.adapter_file.contents import BaselineContents, Contents
from dcft_cli.adapter_file.read import file_in
from dcft_cli.adapter_file.write import save_baseline
from dcft_cli.errors import MergeError
from dcft_cli.recipe import AdapterSection
from dcft_cli.targets.gradients import Loss
from dcft_cli.targets.head import Parts, fix
from dcft_cli.targets.resolve import Target


class Method(ABC):
    """A fine-tuning method in one model.

    A subclass says in `insert` what it adds to a frozen model, and what of the model it trains;
    everything else follows from the parameters that are new, or trained, afterwards.

    Args:
        settings: the recipe's adapter section.
        seed: of initial values that a file does not hold.
        total_steps: optimizer steps of the training, for schedules; None outside training.

    Attributes:
        can_merge: whether the trained model is one of the base's architecture.
        not_decayed: parts of the names of its own parameters that weight decay does not apply to:
            biases, and values whose zero is not the base model, such as factors that start at 1.
        model: the model that it is attached to.
        base: parameters of the model without what the method adds, by name.
        parts: the targets, and what of the head is trained or fixed.
    """

    can_merge: ClassVar[bool] = True
    not_decayed: ClassVar[frozenset[str]] = frozenset({"bias"})
    model: nn.Module
    base: dict[str, nn.Parameter]
    parts: Parts

    def __init__(
        self, settings: AdapterSection, *, seed: int, total_steps: int | None = None
    ) -> None:
        self.settings, self.seed, self.total_steps = settings, seed, total_steps

    @abstractmethod
    def insert(self, model: nn.Module, targets: Sequence[Target]) -> None:
        """Add the method's modules to a frozen model, in place, and unfreeze what it trains.

        Frozen parameters stay the same objects. On the meta device nothing may read a value.

        Raises:
            TargetError: the method cannot change one of the targets.
        """

    def attach(self, model: nn.Module, parts: Parts) -> None:
        """Freeze a model except its head, and insert the method, in place."""
        self.model, self.parts, self.base = model, parts, dict(model.named_parameters())
        for name in parts.fixed:
            fix(self.base[name])
        model.requires_grad_(False)
        with torch.random.fork_rng():  # data order and dropout do not depend on the method
            torch.manual_seed(self.seed)
            self.insert(model, parts.targets)
        for name in parts.trained:
            self.base[name].requires_grad_(True)

    def remove_unreached(self, inputs: Mapping[str, Any], loss: Loss | None = None) -> list[str]:
        """Remove what the loss does not depend on, given the inputs of one forward pass.

        Args:
            loss: of outputs and inputs; None: the model's own.

        Returns:
            Names of the layers.
        """
        return []

    def parameters(self) -> dict[str, nn.Parameter]:
        """Return what makes the method up beside the head, by the names in the attached model.

        These are its own parameters, frozen ones too, and those of the base that it trains.
        """
        names = {id(parameter): name for name, parameter in self.base.items()}
        return {
            names.get(id(parameter), name): parameter
            for name, parameter in self.model.named_parameters()
            if id(parameter) not in names
            or (parameter.requires_grad and names[id(parameter)] not in self.parts.trained)
        }

    def head(self) -> dict[str, nn.Parameter]:
        """Return the trained parameters of the task head, by their names in the base."""
        return {name: self.base[name] for name in self.base if name in self.parts.trained}

    def trained_parameters(self) -> int:
        """Return the number of trained values beside the head."""
        return sum(p.numel() for p in self.parameters().values() if p.requires_grad)

    def decays(self, name: str) -> bool:
        """Return whether weight decay applies to one of its own parameters, by its name."""
        return self.not_decayed.isdisjoint(name.split("."))

    def penalty(self) -> Tensor | None:
        """Return the term to add to the training loss, a scalar; None: there is none."""
        return None

    def after_step(self, step: int) -> None:  # noqa: B027 (a hook)
        """Change parameters after the optimizer's step, from their gradients if need be.

        Args:
            step: 1 for the first.
        """

    def was_skipped(self) -> bool:
        """Return whether float16 has skipped the optimizer's step: a gradient is not finite."""
        # Of all that is trained: clipping makes zeros of a parameter's gradients for another's.
        trained = (self.parameters() | self.head()).values()
        finite = [p.grad.isfinite().all() for p in trained if p.grad is not None]
        return bool(finite) and not bool(torch.stack(finite).all())

    def state(self) -> dict[str, Tensor]:
        """Return what resuming needs beside the parameters and the optimizer's state."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:  # noqa: B027 (a hook)
        """Restore what `state` returned."""

    def weight_change(self) -> float | None:
        """Return how much the weights change: median of |dW| / |W|; None if that is unknown."""
        return None

    def facts(self) -> dict[str, Any]:
        """Return what there is to say about the trained method, such as ranks; for metrics.json."""
        return {}

    def notes(self, step: int) -> list[str]:
        """Return what a user should know of the trained method, as it was after a step."""
        return []

    def save(
        self,
        path: Path,
        *,
        base: Mapping[str, str | None],
        info: Mapping[str, Any],
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Write the adapter file.

        Args:
            path: the file, or a folder for it.
            base: "name", "revision" and "fingerprint" of the base model.
            info: about task, labels and data.
            dtype: of the values in the file.
        """
        save_baseline(
            file_in(path),
            self.model,
            method=self.settings.method,
            settings=self.settings.own_settings(),
            seed=self.seed,
            targets=self.parts.targets,
            tensors=self.parameters(),
            trained=self.trained_parameters(),
            head=self.head(),
            fixed=self.parts.fixed,
            base=base,
            info=info,
            dtype=dtype,
        )

    def fits(self, contents: Contents) -> bool:
        """Return whether a file of this method has these settings, tensors and head."""
        return (
            isinstance(contents, BaselineContents)
            and dict(contents.settings) == self.settings.own_settings()
            and contents.seed == self.seed
            and _shapes(contents.tensors) == _shapes(self.parameters())
            and _shapes(contents.head) == _shapes(self.head())
            and contents.fixed == self.parts.fixed
        )

    @torch.no_grad()
    def load(self, contents: Contents) -> None:
        """Copy the tensors of a checked file into the attached model.

        Raises:
            AdapterFileError: the file holds other tensors.
        """
        assert isinstance(contents, BaselineContents)
        contents.check_tensors(_shapes(self.parameters()))
        for name, parameter in self.parameters().items():
            parameter.copy_(torch.tensor(contents.tensors[name]))
        for name, parameter in self.head().items():
            parameter.copy_(torch.tensor(contents.head[name]))

    def merge(self) -> None:
        """Turn the model into one of the base's architecture, in place, with equal outputs.

        Raises:
            MergeError: the method adds layers that stay.
        """
        self.refuse_unmergeable()
        self.fold()

    def refuse_unmergeable(self) -> None:
        """Raise MergeError if the method adds layers that stay."""
        if not self.can_merge:
            raise MergeError(
                f"{self.settings.method} adds layers of its own, which no weight of the base can "
                "hold: there is nothing to merge into.",
                "Use the adapter as it is: `dcft predict`.",
            )

    def fold(self) -> None:  # noqa: B027 (a hook)
        """Merge; called where `can_merge`. Nothing to do where only base weights are trained."""


def _shapes(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
