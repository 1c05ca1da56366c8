"""Python's collector while modules are imported."""

import gc

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
