"""Errors that are not dcft's own, explained: the operating system's, and memory that runs out."""

import errno

from dcft_cli.errors import DCFTError, UserError

_PLACE = "Check the path and its permissions, or choose another one."
_ROOM = "Make room there (`df -h`, `quota`), and repeat the command."
_GONE = "If it was there before, it was moved or removed while dcft worked with it."

# What the user named cannot be read or written there.
_USER_ERRORS = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOTEMPTY,
    errno.EEXIST,
    errno.ELOOP,
}
_FAILURES = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: "Raise the limit of the file size (`ulimit -f`), and repeat the command.",
    errno.ENOENT: _GONE,
    errno.ESTALE: _GONE,
    errno.EIO: "The disk or the connection to it fails: choose another place.",
    errno.EMFILE: "Raise the number of files that may be open (`ulimit -n`).",
    errno.ENFILE: "Close other programs: this machine has too many open files.",
}
_KEPT = {
    "train": " Checkpoints that are complete are kept: --resume continues from the last one.",
    "sweep": " The same command goes on from here; --retry-failed repeats runs that failed.",
}

_MEMORY_TEXTS = (
    " out of memory",  # CUDA, ROCm, MPS and Intel's GPUs
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",  # Windows
    "CUBLAS_STATUS_ALLOC_FAILED",
)
_SMALLER_MODEL = "model.dtype=bfloat16 takes half the memory for the base model"
_TRAIN_LESS = (
    "Halve training.batch_size and double training.gradient_accumulation_steps, which trains the "
    "same (training.auto_batch_size=true does it when needed); or lower data.max_length, or set "
    "training.gradient_checkpointing=true. In evaluations: training.eval_batch_size. "
    f"{_SMALLER_MODEL}."
)
_LESS = {
    "train": _TRAIN_LESS,
    "sweep": _TRAIN_LESS,
    "eval": f"Lower training.eval_batch_size, for example to 8, or data.max_length. "
    f"{_SMALLER_MODEL}.",
    "predict": f"Lower --batch-size, for example to 8. {_SMALLER_MODEL}.",
}


def explained(error: Exception, command: str = "") -> DCFTError:
    """Return an error for the user: what happened, where, and what to do.

    Args:
        error: any; a DCFTError is returned as it is.
        command: the command that failed, such as "train".
    """
    if isinstance(error, DCFTError):
        return error
    if is_out_of_memory(error):
        lines = str(error).strip().splitlines() or [type(error).__name__]
        return DCFTError(
            f"Out of memory: {lines[0]}",
            _LESS.get(command, "Close other programs, or use a machine with more memory."),
        )
    if isinstance(error, OSError) and error.errno is not None:
        what = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
        if error.filename and error.errno in _USER_ERRORS:
            return UserError(f"{what}.", _PLACE)
        if error.errno in _FAILURES:
            return DCFTError(f"{what}.", _FAILURES[error.errno] + _KEPT.get(command, ""))
    return DCFTError(
        f"{type(error).__name__}: {error}",
        "Unexpected error: rerun with --debug for a traceback, and please report it with the"
        " output of `dcft env`.",
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether the memory of a device or of the machine has run out."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MEMORY_TEXTS)
