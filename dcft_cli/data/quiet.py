"""Keep the libraries that read and map data from drawing progress bars and logging."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import datasets.utils
import huggingface_hub.utils


@contextmanager
def quiet() -> Iterator[None]:
    """Disable progress bars and log messages below errors, and restore both afterwards."""
    with ExitStack() as restore:
        for library in (datasets.utils, huggingface_hub.utils):
            if not library.are_progress_bars_disabled():
                library.disable_progress_bars()
                restore.callback(library.enable_progress_bars)
            restore.callback(library.logging.set_verbosity, library.logging.get_verbosity())
            library.logging.set_verbosity_error()
        yield
