"""From an adapter file to a model with its method attached."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from torch import nn

from dcft_cli.adapter.inject import M, refuse_adapted
from dcft_cli.adapter_file.contents import AdapterContents, BaselineContents, Contents
from dcft_cli.adapter_file.description import first_problem
from dcft_cli.adapter_file.fingerprint import fingerprint
from dcft_cli.adapter_file.hub import locate
from dcft_cli.adapter_file.load import check_fingerprint, matching_targets, name_classes
from dcft_cli.adapter_file.read import read_adapter
from dcft_cli.errors import AdapterFileError
from dcft_cli.methods.build import build
from dcft_cli.methods.method import Method
from dcft_cli.recipe import AdapterSection
from dcft_cli.targets.head import Parts
from dcft_cli.targets.resolve import find_weights


def load_adapter(
    model: M, path: str | Path, *, check_base: bool = True, base_fingerprint: str | None = None
) -> M:
    """Insert a saved adapter and its head into its base model, in place.

    Args:
        model: the base model, of the class that the adapter was trained with, with as many
            labels (a task head with fresh weights is overwritten).
        path: an adapter file, a folder with `adapter.safetensors` in it, or the `package://` or
            `hub://` address of one.
        check_base: refuse a model whose frozen weights are not those the adapter was trained on.
        base_fingerprint: of the base weights; None computes it. That of a quantized
            model cannot be computed: pass that of the weights in full precision.

    Returns:
        The same model, with everything frozen except the adapters and the head, and with the
        adapter's class names in its configuration.

    Raises:
        AdapterFileError: a damaged file, or one that was made for another base model.
        TargetError: the model has adapters already.
    """
    contents = read_adapter(locate(path))
    load_method(model, contents, check_base=check_base, base_fingerprint=base_fingerprint)
    return model


def load_method(
    model: nn.Module,
    contents: Contents,
    *,
    check_base: bool = True,
    base_fingerprint: str | None = None,
) -> Method:
    """Attach the method of a file to its base model, with the file's values, in place.

    Args:
        model, check_base, base_fingerprint: as for `load_adapter`.
        contents: of the file.

    Raises:
        AdapterFileError: the file was made for another base model.
        UserError: the library that the method takes is not installed.
    """
    refuse_adapted(model)
    method = build(settings_of(contents), seed=getattr(contents, "seed", 0))
    weights, parameters = find_weights(model), dict(model.named_parameters())
    targets = matching_targets(contents, weights, parameters, type(model).__name__)
    parts = Parts(tuple(targets), frozenset(contents.head), contents.fixed)
    if check_base:
        found = base_fingerprint or fingerprint(model, exclude=contents.not_in_base)
        check_fingerprint(contents, found)
    method.attach(model, parts)
    name_classes(model, contents)
    method.load(contents)
    return method


def settings_of(contents: Contents) -> AdapterSection:
    """Return the settings of a file's method, as a recipe has them.

    Raises:
        AdapterFileError: there is no such method, or it has no such settings.
    """
    values: dict[str, Any]
    if isinstance(contents, AdapterContents):
        values = asdict(contents.config)
    else:
        assert isinstance(contents, BaselineContents)
        values = dict(contents.settings)
    try:
        return AdapterSection.model_validate({"method": contents.method, **values})
    except ValidationError as error:
        raise AdapterFileError(
            f"{contents.path}: this dcft cannot use the method {contents.method} with these "
            f"settings ({first_problem(error)}).",
            "Use it with the version of dcft that wrote it (`dcft inspect` shows it).",
        ) from error
