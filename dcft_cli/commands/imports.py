"""Faster imports of torch and transformers."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused() -> Iterator[None]:
    """Pause the garbage collector, and exclude what was imported from later collections.

    Imported modules are no garbage, and looking for it takes a fifth of the time that importing
    torch and transformers takes, plus another quarter at exit.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
