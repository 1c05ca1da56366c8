"""Importing torch and transformers sooner."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def imports_uncollected() -> Iterator[None]:
    """Keeps Python from looking for garbage among what is being imported, then or later.

    Modules stay, so there is none to find, and the search takes a fifth of the time that it takes
    to import torch and transformers; at the end of the process it would take another quarter.
    Whatever else there is by then is left alone, too: this is for the beginning of a command. A
    collector that is switched off already stays so.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
