"""Python's collector while modules are imported."""

import gc
import sys

import pytest

from dcft_cli.commands.imports import gc_paused


def test_the_collector_is_restored() -> None:
    assert gc.isenabled()
    with pytest.raises(ImportError), gc_paused():
        assert not gc.isenabled()
        raise ImportError
    assert gc.isenabled()


def test_imported_objects_are_frozen() -> None:
    gc.unfreeze()
    try:
        with gc_paused():
            assert gc.get_freeze_count() == 0
        assert gc.get_freeze_count() > len(sys.modules)
    finally:
        gc.unfreeze()
