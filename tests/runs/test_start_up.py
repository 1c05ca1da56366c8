"""Python's collector while modules are imported."""

import gc
import sys

import pytest

from dcft_cli.runs.start_up import imports_uncollected


def test_the_collector_is_as_it_was() -> None:
    assert gc.isenabled()
    with imports_uncollected():
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ImportError), imports_uncollected():
        raise ImportError
    assert gc.isenabled()
    gc.disable()
    try:
        with imports_uncollected():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_what_was_imported_is_looked_at_no_more() -> None:
    gc.unfreeze()
    with imports_uncollected():
        assert gc.get_freeze_count() == 0
    try:
        assert gc.get_freeze_count() > len(sys.modules)
    finally:
        gc.unfreeze()
