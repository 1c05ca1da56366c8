"""A fingerprint of a model's frozen weights: is this the base the adapter was trained on?"""

import hashlib
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

from dcft_cli.adapter.inject import base_parameters
from dcft_cli.errors import ModelError
from dcft_cli.targets.weights import is_packed

_PART = 1 << 20  # numbers hashed at once: no second copy of a large weight


def fingerprint(
    model: nn.Module,
    *,
    exclude: Collection[str] = (),
    digests: Mapping[str, bytes] | None = None,
) -> str:
    """Hashes every frozen parameter of a model, by name, shape and value.

    Values are rounded to bfloat16 first, so the same checkpoint gives the same fingerprint
    whether it is held in float32 or bfloat16, with or without adapters, on any device.

    Args:
        model: the base model; adapters in it are not counted.
        exclude: names of parameters to leave out (the task head's).
        digests: those of parameters that were hashed already, by name.

    Returns:
        "sha256:" and 64 hexadecimal digits.

    Raises:
        ModelError: the model is quantised: its weights are no longer the checkpoint's. Or they
            are not in memory.
    """
    parameters = sorted((n, p) for n, p in base_parameters(model).items() if n not in exclude)
    if packed := [n for n, p in parameters if is_packed(p)]:
        raise ModelError(
            f"The model is quantised ({packed[0]}): its base weights cannot be told from it.",
            "Compute the fingerprint of the base in full precision and hand it over.",
        )
    if absent := [n for n, p in parameters if p.is_meta]:
        raise ModelError(
            f"The weights of the model are not all in memory ({absent[0]} is not).",
            "Load the base without device_map or offloading; offload it when the adapter is in it.",
        )
    known = digests or {}
    with ThreadPoolExecutor() as pool:  # hashing lets other threads run
        taken = pool.map(lambda entry: known.get(entry[0]) or digest_of(entry[1]), parameters)
        whole = hashlib.sha256()
        for (name, _), digest in zip(parameters, taken, strict=True):
            whole.update(name.encode() + b"\0" + digest)
    return f"sha256:{whole.hexdigest()}"


@torch.no_grad()
def digest_of(parameter: Tensor) -> bytes:
    """The part that a parameter has in the fingerprint: its shape and its values."""
    shape = "x".join(map(str, parameter.shape)).encode()
    digest = hashlib.sha256(shape + b"\0")
    for part in parameter.detach().flatten().split(_PART):  # type: ignore[no-untyped-call]
        digest.update(part.to(torch.bfloat16).view(torch.int16).cpu().numpy())
    return digest.digest()
