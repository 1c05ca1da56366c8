"""Errors of the operating system, and memory that runs out, as a user is told."""

import errno
import os
from pathlib import Path

import pytest
import torch

from dcft_cli.errors import DCFTError, RunError, UserError
from dcft_cli.failures import explained, is_out_of_memory


def system_error(number: int, path: str | None = "a/file") -> OSError:
    return OSError(number, os.strerror(number), path)


@pytest.mark.parametrize(
    "number", [errno.EACCES, errno.EROFS, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTEMPTY]
)
def test_a_place_that_cannot_be_used_is_a_user_error(number: int) -> None:
    error = explained(system_error(number))
    assert isinstance(error, UserError)
    assert error.message == f"{os.strerror(number)}: a/file."
    assert "another one" in error.hint


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "Make room"),
        (errno.EDQUOT, "Make room"),
        (errno.EFBIG, "ulimit -f"),
        (errno.ENOENT, "removed"),
        (errno.EMFILE, "ulimit -n"),
    ],
)
def test_a_failure_says_what_and_where_and_how_to_go_on(number: int, hint: str) -> None:
    error = explained(system_error(number), "train")
    assert (error.exit_code, error.message) == (1, f"{os.strerror(number)}: a/file.")
    assert hint in error.hint and "--resume" in error.hint
    assert "--resume" not in explained(system_error(number), "merge").hint
    assert explained(system_error(number, None)).message == f"{os.strerror(number)}."


def test_other_errors() -> None:
    own = RunError("what", "hint")
    assert explained(own) is own
    found = explained(ZeroDivisionError("by zero"))
    assert (type(found), found.message) == (DCFTError, "ZeroDivisionError: by zero")
    assert "report it" in found.hint
    assert "ConnectionRefusedError" in explained(system_error(errno.ECONNREFUSED, None)).message


def cpu_error() -> RuntimeError:
    """What torch raises for more memory than can be addressed."""
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**55, dtype=torch.uint8)
    return caught.value


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), cpu_error()])
def test_out_of_memory_names_the_settings_to_change(error: Exception) -> None:
    assert is_out_of_memory(error)
    found = explained(error, "train")
    assert (found.exit_code, found.message) == (1, f"Out of memory: {error}".splitlines()[0])
    for setting in (
        "training.batch_size",
        "gradient_accumulation_steps",
        "training.auto_batch_size=true",
        "training.gradient_checkpointing=true",
        "data.max_length",
    ):
        assert setting in found.hint
    assert "training.eval_batch_size" in explained(error, "eval").hint
    assert "--batch-size" in explained(error, "predict").hint
    assert explained(error, "merge").hint


def test_other_runtime_errors_are_not_out_of_memory(tmp_path: Path) -> None:
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    assert not is_out_of_memory(OSError(" out of memory"))
