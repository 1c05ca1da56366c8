"""Adapters on the Hugging Face Hub: `hub://USER/NAME` addresses."""

import re
from pathlib import Path

from dcft_cli.adapter_file.read import ADAPTER_FILE, file_in
from dcft_cli.addresses import local_path
from dcft_cli.errors import AdapterFileError

SCHEME = "hub://"

_PART = r"[\w.-]+"
_REPOSITORY = re.compile(rf"{_PART}/{_PART}", re.ASCII)
_ADDRESS = re.compile(rf"{SCHEME}(?P<repository>{_PART}/{_PART})(?:@(?P<revision>\S+))?", re.ASCII)


def is_hub_address(source: str | Path) -> bool:
    """Return whether an adapter is named by a Hub address."""
    return isinstance(source, str) and source.startswith(SCHEME)


def is_repository(name: str) -> bool:
    """Return whether a text has the form of a repository's name, USER/NAME."""
    return _REPOSITORY.fullmatch(name) is not None


def locate(source: str | Path) -> Path:
    """Return the adapter file that a path or an address names; download it if it is not cached.

    Args:
        source: a file, a folder with `adapter.safetensors` in it, the `package://` address of
            one, or `hub://USER/NAME`, with `@REVISION` (branch, tag or commit) if it is not the
            main branch.

    Raises:
        AdapterFileError: an address of another form, no such repository or adapter in it, or the
            Hub cannot be reached.
        UserError: the package is not installed, or holds no such file.
    """
    if not isinstance(source, str) or not is_hub_address(source):
        return file_in(local_path(str(source)))
    found = _ADDRESS.fullmatch(source)
    if found is None:
        raise AdapterFileError(
            f"{source} is no address of an adapter on the Hub.",
            f"Write {SCHEME}USER/NAME, or {SCHEME}USER/NAME@REVISION.",
        )
    # Imported here: reading local files needs no network library.
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        path = hf_hub_download(found["repository"], ADAPTER_FILE, revision=found["revision"])
    except LocalEntryNotFoundError as error:
        raise AdapterFileError(
            f"{source} is not in the local cache, and the Hub cannot be reached.",
            "Check the network, and that HF_HUB_OFFLINE is not set.",
        ) from error
    except HFValidationError as error:
        raise AdapterFileError(f"{source}: {error}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code
        raise AdapterFileError(
            f"{source} could not be read from the Hub: {_REASONS.get(status, f'status {status}')}.",
            "Check the name; for a private repository, log in: hf auth login.",
        ) from error
    return Path(path)


_REASONS = {
    401: "there is no such repository, or it is private",
    403: "no permission to read it",
    404: f"there is no such repository or revision, or no {ADAPTER_FILE} in it",
}
