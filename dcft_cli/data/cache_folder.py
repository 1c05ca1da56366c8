"""Where encoded rows are cached."""

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """Return the folder of encoded rows (docs/recipes.md); None if caching is turned off."""
    own = os.environ.get("DCFT_CACHE")
    if own is not None:
        return Path(own).expanduser() / "encoded" if own else None
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "dcft" / "encoded"
