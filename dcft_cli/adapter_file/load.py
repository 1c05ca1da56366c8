"""Loading adapter files into a model."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from dcft_cli.adapter.inject import adapter_layers, base_parameters
from dcft_cli.adapter_file.contents import AdapterContents, Contents
from dcft_cli.errors import AdapterFileError
from dcft_cli.targets.resolve import Target
from dcft_cli.targets.weights import Matrix


def check_fingerprint(contents: Contents, found: str) -> None:
    """Raise AdapterFileError if the adapter was trained on weights of another fingerprint."""
    trained_on = str(contents.base["fingerprint"])
    if found != trained_on:
        raise AdapterFileError(
            f"{contents.path} was trained on other base weights: "
            f"{contents.base['name'] or 'its base'} with fingerprint {_short(trained_on)}; "
            f"this model's is {_short(found)}.",
            "Load the base model (and revision) that the adapter names, see `dcft inspect`.",
        )


@torch.no_grad()
def load_tensors(model: nn.Module, contents: AdapterContents) -> None:
    """Copy the tensors of a file into a model that has its adapters already."""
    parameters = base_parameters(model)
    for name, tensor in contents.head.items():
        assert parameters[name].shape == tensor.shape, name  # copy_ would broadcast
        parameters[name].copy_(torch.tensor(tensor))
    for name, layer in adapter_layers(model).items():
        for factor, tensor in contents.factors[name].items():
            getattr(layer, factor).copy_(torch.tensor(tensor))


def name_classes(model: nn.Module, contents: Contents) -> None:
    """Put the adapter's class names into a model's configuration: they belong to the head."""
    config, labels = getattr(model, "config", None), contents.model["labels"]
    if config is not None and labels:
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: number for number, label in enumerate(labels)}


def matching_targets(
    contents: Contents,
    weights: Mapping[str, tuple[Matrix, ...]],
    parameters: Mapping[str, Tensor],
    model: str,
    *,
    any_labels: bool = False,
) -> list[Target]:
    """Find the modules of a file in a model; check every shape, those of the head included.

    Args:
        weights: of the model, by name, as `find_weights` returns them.
        parameters: of the model, by name.
        model: name of its class, for errors.
        any_labels: whether the head may have another number of outputs.

    Raises:
        AdapterFileError: a parameter is missing, or has another shape.
    """
    targets = [Target(m.name, m.role, weights.get(m.weight, ()), m.rows) for m in contents.modules]
    for target, module in zip(targets, contents.modules, strict=True):
        if not target.matrices:
            raise _mismatch(contents, f"{module.weight}, which the model does not have", model)
        rows = target.matrix.out_features
        sizes = (target.matrix.count, target.out_features, target.in_features)
        wanted = (module.count, module.out_features, module.in_features)
        if sizes != wanted or (target.rows and target.rows[1] > rows):
            have = _by(wanted)
            if module.rows:
                have += f" (rows {module.rows[0]} to {module.rows[1] - 1})"
            real = _by((target.matrix.count, rows, target.in_features))
            raise _mismatch(contents, f"{module.name} of shape {have}, the model has {real}", model)
    first = 1 if any_labels else 0  # dimension that must be the same
    for name, tensor in contents.head.items():
        found = parameters.get(name)
        if found is None or found.shape[first:] != tensor.shape[first:]:
            actual = "nothing of this name" if found is None else tuple(found.shape)
            difference = f"{name} of shape {tensor.shape}, the model has {actual}"
            raise _mismatch(contents, difference, model)
    for name in sorted(contents.fixed - parameters.keys()):
        raise _mismatch(contents, f"{name}, which the model does not have", model)
    return targets


def _by(sizes: Iterable[int | None]) -> str:
    return " x ".join(str(size) for size in sizes if size is not None)


def _mismatch(contents: Contents, difference: str, model: str) -> AdapterFileError:
    """Return the error for a file that has `difference`, and does not fit a class of model."""
    return AdapterFileError(
        f"{contents.path} does not fit this model ({model}): it has {difference}.",
        f"It was trained on {contents.base['name'] or 'another base model'}.",
    )


def _short(fingerprint: str) -> str:
    return fingerprint[: len("sha256:") + 12]
