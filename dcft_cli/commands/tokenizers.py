"""The tokenizers library in a process that will train."""

import os


def stop_parallelism() -> None:
    """Switch off the threads of tokenizers, unless the user has decided otherwise.

    All rows are tokenized before data loaders start, in each of which the library would warn.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
