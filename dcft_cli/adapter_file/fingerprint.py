"""A fingerprint of a model's frozen weights, to recognize the base of an adapter."""

import hashlib
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from dcft_cli.adapter.inject import base_parameters
from dcft_cli.errors import ModelError
from dcft_cli.targets.weights import is_packed

_CHUNK_SIZE = 1 << 20  # values hashed at a time: no second copy of a large weight


def fingerprint(model: nn.Module, *, exclude: Collection[str] = ()) -> str:
    """Hash every frozen parameter of a model, by name, shape and value.

    Values are rounded to bfloat16 first, so the same checkpoint gives the same fingerprint
    whether it is held in float32 or bfloat16, with or without adapters, on any device.

    Args:
        model: the base model; adapters in it are not counted.
        exclude: names of parameters to leave out: those whose values the adapter file decides.

    Returns:
        "sha256:" and 64 hexadecimal digits.

    Raises:
        ModelError: the weights are quantized, so no longer the checkpoint's, or are not in
            memory.
    """
    return fingerprint_of({n: p for n, p in base_parameters(model).items() if n not in exclude})


def fingerprint_of(frozen: Mapping[str, Tensor]) -> str:
    """Hash parameters by name, as `fingerprint` does."""
    parameters = sorted(frozen.items())
    if packed := [n for n, p in parameters if is_packed(p)]:
        raise ModelError(
            f"A quantized model has no fingerprint: its original weights are gone ({packed[0]}).",
            "Compute the fingerprint of the base in full precision and pass it on.",
        )
    if absent := [n for n, p in parameters if p.is_meta]:
        raise ModelError(
            f"The weights of the model are not all in memory ({absent[0]} is not).",
            "Load the base without device_map or offloading; offload it when the adapter is in it.",
        )
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        digests = pool.map(_digest, [parameter for _, parameter in parameters])
        whole = hashlib.sha256()
        for (name, _), digest in zip(parameters, digests, strict=True):
            whole.update(name.encode() + b"\0" + digest)
    return f"sha256:{whole.hexdigest()}"


@torch.no_grad()
def _digest(parameter: Tensor) -> bytes:
    """Hash the shape and the values of a parameter."""
    shape = "x".join(map(str, parameter.shape)).encode()
    digest = hashlib.sha256(shape + b"\0")
    for chunk in parameter.detach().flatten().split(_CHUNK_SIZE):  # type: ignore[no-untyped-call]
        digest.update(chunk.to(torch.bfloat16).view(torch.int16).cpu().numpy())
    return digest.digest()
