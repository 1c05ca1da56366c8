"""What libraries keep in memory while a model trains or is scored on the CPU."""

import ctypes
import os
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_MOST = 2**31 - 1
_MOST_MMAP = 32 * 1024**2  # what glibc takes on 64 bits
_KEPT_PRODUCTS = 64  # more than a step has sizes of
# oneDNN's own cache, and that of torch's way to it.
_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")


def keep_freed_memory() -> bool:
    """Has glibc keep what a training step frees for the next step, which asks for it again.

    Else it returns the memory to the system step by step and gets it back page by page: about a
    quarter of all page faults, and 4 % of the time of a small encoder's steps. The peak stays.

    Returns:
        Whether this is glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    library.mallopt(_MMAP_THRESHOLD, _MOST_MMAP)
    library.mallopt(_TRIM_THRESHOLD, _MOST)
    return True


def keep_fewer_products() -> None:
    """Has oneDNN keep what it has made for 64 sizes of products, where it would for 1,024.

    Each takes about 0.4 MB, and batches of changing lengths have hundreds of sizes; to make one
    anew takes about a millisecond. Must come before the first product; where
    the environment says something, that holds.
    """
    for name in _CACHES:
        os.environ.setdefault(name, str(_KEPT_PRODUCTS))
