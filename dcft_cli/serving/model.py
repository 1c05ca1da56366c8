"""A base model with many adapters."""

from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from itertools import combinations
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from dcft_cli.acceleration import enable
from dcft_cli.adapter.inject import base_parameters, refuse_adapted
from dcft_cli.adapter_file.contents import AdapterContents
from dcft_cli.adapter_file.fingerprint import fingerprint_of
from dcft_cli.adapter_file.hub import is_hub_address, locate
from dcft_cli.adapter_file.load import check_fingerprint, matching_targets
from dcft_cli.adapter_file.read import ADAPTER_FILE, read_adapter
from dcft_cli.errors import AdapterFileError, ModelError, listed
from dcft_cli.models.loading import (
    HEAD_OUTPUTS,
    head_outputs,
    load_config,
    load_model,
    quiet_transformers,
)
from dcft_cli.recipe.schema import ModelSection
from dcft_cli.serving.held import HeldAdapter
from dcft_cli.serving.layers import SelectedHead, SelectedLinear, SelectedParametrization
from dcft_cli.serving.selection import Selection, join_rows, select_by_row, select_one, selected
from dcft_cli.targets.example import example_of
from dcft_cli.targets.head import fix
from dcft_cli.targets.modules import replace_modules
from dcft_cli.targets.resolve import find_weights


class DCFTModel(nn.Module):
    """A base model for inference, with adapters that are loaded, chosen and deleted by name.

    The base is in memory once. An adapter adds its own values only; switching reads no file.

        model = DCFTModel.from_pretrained("microsoft/deberta-v3-base")
        model.load_adapter("runs/tickets", "tickets")
        model.load_adapter("runs/spam", "spam")
        model(**inputs)  # by "tickets", the first
        model.set_adapter("spam")
        model(**inputs)
        model(**inputs, adapter_names=["spam", "tickets", "spam"])  # one for each row

    Threads may call the model at the same time; each call with `adapter_names` has its own.

    Args:
        model: a transformers model of the class that the adapters were trained with, without
            adapters; changed in place. Its own head, and so its number of labels, does not matter.

    Attributes:
        active_adapter: name of the adapter that calls without `adapter_names` use.
    """

    def __init__(self, model: nn.Module) -> None:
        refuse_adapted(model)
        super().__init__()
        self.model = model
        self.active_adapter: str | None = None
        self._held = nn.ModuleDict()  # by number: its keys may not have dots
        self._keys: dict[str, str] = {}
        self._weights = find_weights(model)
        self._base_parameters = base_parameters(model)
        self._fingerprints: dict[frozenset[str], str] = {}
        self._wrapped: set[str] = set()
        self._mixes: dict[object, bool] = {}
        self.eval().requires_grad_(False)  # frozen layers are faster

    @classmethod
    def from_pretrained(
        cls,
        base: str,
        *,
        revision: str | None = None,
        auto_class: str = "AutoModelForSequenceClassification",
        device: str | torch.device = "cpu",
    ) -> Self:
        """Load a base model in float32, with acceleration.

        Args:
            base: a name on the Hub, a folder, or a `package://` address.
            revision: commit, tag or branch on the Hub.
            auto_class: of transformers, for the task that the adapters were trained for.

        Raises:
            ModelError: there is no such model, or none of this class.
        """
        quiet_transformers()  # which warns of a new task head; the adapters bring theirs
        section = ModelSection(name=base, revision=revision)
        model = load_model(section, load_config(section), auto_class).model
        nn.Module.to(model, torch.device(device))
        enable(model)
        return cls(model)

    @property
    def adapter_names(self) -> list[str]:
        """Return the names of the loaded adapters, in the order of loading."""
        return list(self._keys)

    def labels(self, name: str) -> tuple[str, ...]:
        """Return the class names of an adapter in the order of its logits; empty without classes.

        Raises:
            ModelError: no adapter has this name.
        """
        return self._get(name).labels

    def load_adapter(
        self,
        source: str | Path | AdapterContents,
        name: str | None = None,
        *,
        check_base: bool = True,
        base_fingerprint: str | None = None,
    ) -> str:
        """Load an adapter. The first one becomes the active one.

        Args:
            source: adapter file, a folder with `adapter.safetensors` in it, the `package://` or
                `hub://` address of one, or its contents.
            name: to call it by; None: that of the repository on the Hub, of the folder, or of a
                file with a name of its own.
            check_base: refuse an adapter that was trained on other base weights.
            base_fingerprint: of the base weights; None computes it. That of a quantized model
                cannot be computed: pass that of the weights in full precision.

        Returns:
            The name.

        Raises:
            AdapterFileError: no such file, a damaged one, or one for another base model or class.
            ModelError: there is an adapter of this name.
        """
        contents = source if isinstance(source, AdapterContents) else read_adapter(locate(source))
        name = name or _default_name(source, contents.path.absolute())
        if name in self._keys:
            raise ModelError(
                f"There is an adapter called {name}.",
                "Choose another name, or delete it first: model.delete_adapter(name).",
            )
        self._check(contents)
        if check_base:
            check_fingerprint(contents, base_fingerprint or self._fingerprint(contents))
        self._wrap(contents)
        adapter = HeldAdapter(contents)
        adapter.to(next(self.model.parameters()).device)
        key = str(1 + max(map(int, self._held), default=0))
        self._held[key], self._keys[name] = adapter, key
        self.active_adapter = self.active_adapter or name
        return name

    def set_adapter(self, name: str) -> None:
        """Choose the adapter for calls without `adapter_names`.

        Raises:
            ModelError: no adapter has this name.
        """
        self._get(name)
        self.active_adapter = name

    def delete_adapter(self, name: str) -> None:
        """Delete an adapter. If it was the active one, none is active any more.

        Raises:
            ModelError: no adapter has this name.
        """
        self._get(name)
        del self._held[self._keys.pop(name)]
        if self.active_adapter == name:
            self.active_adapter = None

    def can_mix(self, names: Iterable[str]) -> bool:
        """Return whether rows of these adapters are computed in one pass.

        Otherwise a call takes one pass for each distinct adapter, with the same results. Proved on
        random adapters of the same shapes, once for each shape: rows must stay apart in every
        layer, and no weight may be read without its layer being called.

        Raises:
            ModelError: no adapter has one of the names.
        """
        return all(self._mixes_as(self._get(name)) for name in names)

    @torch.no_grad()
    def forward(self, *, adapter_names: Sequence[str] | None = None, **inputs: Any) -> Any:
        """Compute the outputs of the base model with its adapters, without gradients.

        Args:
            adapter_names: the adapter of each row; None: the active one for all.
            inputs: of the base model, as keywords.

        Returns:
            The base model's outputs. With `adapter_names`, rows with fewer labels than others end
            in logits of minus infinity: softmax, sigmoid and argmax are right without a mask.

        Raises:
            ModelError: no adapter is active, or a name is unknown, or there are more or fewer names
                than rows.
        """
        if adapter_names is None:
            if self.active_adapter is None:
                raise ModelError("No adapter is active.", "Choose one: model.set_adapter(name).")
            return self._pass(select_one(self._get(self.active_adapter)), inputs)
        adapters = [self._get(name) for name in adapter_names]
        sizes = {value.shape[0] for value in inputs.values() if isinstance(value, Tensor)}
        if sizes != {len(adapters)}:
            raise ModelError(
                f"There are {len(adapters)} adapter names for inputs of "
                f"{' and '.join(map(str, sorted(sizes)))} rows.",
                "Give one name for each row.",
            )
        different = set(adapters)
        if len(different) == 1:
            return self._pass(select_one(adapters[0]), inputs)
        if all(self._mixes_as(adapter) for adapter in different):
            return self._pass(select_by_row(adapters), inputs)
        return self._one_after_another(adapters, inputs)

    def _pass(self, selection: Selection, inputs: Mapping[str, Any]) -> Any:
        token = selected.set(selection)
        try:
            return self.model(**inputs)
        finally:
            selected.reset(token)

    def _one_after_another(
        self, adapters: Sequence[HeldAdapter], inputs: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Compute the head's outputs with one pass for each distinct adapter."""
        passes = []
        for adapter, rows in select_by_row(adapters).rows:
            own = {n: v[rows] if isinstance(v, Tensor) else v for n, v in inputs.items()}
            passes.append((rows, self._pass(select_one(adapter), own)))
        first = passes[0][1]
        return type(first)(  # type: ignore[no-any-return]
            **{
                name: join_rows(len(adapters), [(rows, outputs[name]) for rows, outputs in passes])
                for name in HEAD_OUTPUTS
                if name in first
            }
        )

    def _get(self, name: str) -> HeldAdapter:
        if name not in self._keys:
            raise ModelError(
                f"There is no adapter called {name}.",
                f"Loaded: {listed(self.adapter_names) or 'none'}.",
            )
        held = self._held[self._keys[name]]
        assert isinstance(held, HeldAdapter)
        return held

    def _check(self, contents: AdapterContents) -> None:
        """Raise AdapterFileError if a file does not fit the model; its label count may differ."""
        own = type(self.model).__name__
        if contents.model["class"] != own:
            raise AdapterFileError(
                f"{contents.path} was trained with {contents.model['class']}; "
                f"this model is a {own}.",
                "Load the base for its task: from_pretrained(base, auto_class=...).",
            )
        matching_targets(contents, self._weights, self._base_parameters, own, any_labels=True)
        for other in self._keys:
            if read := contents.fixed - self._get(other).not_in_base:
                raise AdapterFileError(
                    f"{contents.path} sets {min(read)} to a constant; the adapter {other} uses the "
                    "value in the base model.",
                    "Load them into a DCFTModel each.",
                )

    def _fingerprint(self, contents: AdapterContents) -> str:
        """Return the fingerprint of the weights that are frozen under an adapter."""
        others = contents.not_in_base
        if others not in self._fingerprints:
            frozen = {n: p for n, p in self._base_parameters.items() if n not in others}
            self._fingerprints[others] = fingerprint_of(frozen)
        return self._fingerprints[others]

    def _wrap(self, contents: AdapterContents) -> None:
        """Put wrappers around the modules that a file changes, where there are none yet."""
        for name in contents.fixed:  # no other adapter reads the base's values
            fix(self._base_parameters[name])
        owners = {name.rpartition(".")[0] for name in contents.head} - self._wrapped
        heads: dict[nn.Module, nn.Module] = {}
        for name in owners:
            module = self.model.get_submodule(name)
            # Of two wrappers, that of the increments is the outer one.
            module = module.base if isinstance(module, SelectedLinear) else module
            heads[module] = SelectedHead(module, name)
        replace_modules(self.model, heads)
        weights = {module.weight for module in contents.modules} - self._wrapped
        layers: dict[nn.Module, nn.Module] = {}
        for weight in weights:
            for matrix in self._weights[weight]:
                module = self.model.get_submodule(matrix.path)
                if matrix.called:
                    layers[module] = SelectedLinear(module, weight)
                else:
                    parametrize.register_parametrization(
                        module, matrix.tensor, SelectedParametrization(matrix, weight)
                    )
        replace_modules(self.model, layers)
        self._wrapped |= owners | weights

    def _mixes_as(self, adapter: HeldAdapter) -> bool:
        """Return whether adapters of this kind are computed in one pass."""
        if adapter.kind not in self._mixes:
            try:
                self._mixes[adapter.kind] = self._prove_mixing(adapter)
            except Exception:  # from anywhere in the model: shapes that do not fit, other inputs
                self._mixes[adapter.kind] = False
        return self._mixes[adapter.kind]

    @torch.no_grad()
    def _prove_mixing(self, adapter: HeldAdapter) -> bool:
        """Compare three random adapters in one pass with one pass for each."""
        example = example_of(self.model, rows=3)
        if example is None:
            return False
        inputs = {name: tensor.to(adapter.factors.device) for name, tensor in example.items()}
        generator = torch.Generator().manual_seed(0)
        samples = [deepcopy(adapter) for _ in range(3)]
        for sample in samples:
            for values in sample.buffers():
                values.copy_(0.2 * torch.randn(values.shape, generator=generator))
        mixed = head_outputs(self._pass(select_by_row(samples), inputs))
        separate = [head_outputs(self._pass(select_one(sample), inputs)) for sample in samples]
        for output, *by_sample in zip(mixed, *separate, strict=True):
            spread = min(float((a - b).abs().max()) for a, b in combinations(by_sample, 2))
            pairs = zip(output, by_sample, strict=True)
            error = max(float((row - own[i]).abs().max()) for i, (row, own) in enumerate(pairs))
            if not error <= spread * torch.finfo(output.dtype).eps ** 0.5:
                return False
        return True


def _default_name(source: str | Path | AdapterContents, file: Path) -> str:
    """Return the name of a repository on the Hub, of a folder, or of a file with its own name."""
    if isinstance(source, str) and is_hub_address(source):
        return source.partition("@")[0].rpartition("/")[2]
    return file.parent.name if file.name == ADAPTER_FILE else file.stem
