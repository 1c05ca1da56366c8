"""Where processes that share a sweep keep its state: Optuna's storages."""

import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from dcft_cli.errors import UserError

if TYPE_CHECKING:
    from optuna.storages import BaseStorage, RDBStorage

_T = TypeVar("_T")

JOURNAL = "sweep.journal"

_ATTEMPTS = 20
_LOCK_SECONDS = 60.0


def require_optuna() -> None:
    """Raise UserError if Optuna is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise UserError(
            "Sweeps need the package optuna.", 'Install it: pip install "dcft-cli[sweep]".'
        ) from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # results are reported here


def exists(url: str | None, output: Path) -> bool:
    """Return whether there may be a storage; opening it would create one."""
    if url is None:
        return (output / JOURNAL).is_file()
    from sqlalchemy import make_url

    address = _checked(url, lambda: make_url(url))
    return address.get_backend_name() != "sqlite" or Path(address.database or "").is_file()


def open_storage(url: str | None, output: Path) -> "BaseStorage":
    """Open or create the storage of a sweep.

    Args:
        url: of a database; None: the journal file in `output`.

    Raises:
        UserError: the database cannot be opened.
    """
    if url is not None:
        return _checked(url, lambda: _open_database(url))
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    output.mkdir(parents=True, exist_ok=True)
    path = str((output / JOURNAL).absolute())
    return JournalStorage(JournalFileBackend(path, JournalFileOpenLock(path)))


def _open_database(url: str) -> "RDBStorage":
    """Open a database, whose tables another process may be creating at the same time."""
    from optuna.storages import RDBStorage
    from sqlalchemy import make_url
    from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

    sqlite = make_url(url).get_backend_name() == "sqlite"
    settings = {"connect_args": {"timeout": _LOCK_SECONDS}} if sqlite else None
    for attempt in range(_ATTEMPTS):
        try:
            storage = RDBStorage(url, engine_kwargs=settings)
        except (IntegrityError, OperationalError, ProgrammingError) as error:
            waits = any(words in str(error) for words in ("exists", "UNIQUE", "locked"))
            if not waits or attempt == _ATTEMPTS - 1:
                raise
            time.sleep(random.uniform(0.05, 0.3))
        else:
            break
    if sqlite:
        _take_turns(storage)
    return storage


def _take_turns(storage: "RDBStorage") -> None:
    """Let each SQLite transaction lock the database before it reads.

    SQLite has no row locks, by which Optuna claims a trial on other databases, and Python's driver
    begins a transaction only at the first write: two processes could read that a trial waits and
    then both start it. The recipe is SQLAlchemy's own, for serializable transactions.
    """
    from sqlalchemy import event

    def connected(connection: Any, record: object) -> None:
        connection.isolation_level = None

    def began(connection: Any) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(storage.engine, "connect", connected)
    event.listen(storage.engine, "begin", began)
    storage.engine.dispose()  # the connections that are open already


def _checked(url: str, function: Callable[[], _T]) -> _T:
    """Call a function of SQLAlchemy, and report what it says about the address."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    try:
        return function()
    except ArgumentError:
        raise UserError(
            "--storage is not the address of a database.",
            "For example: sqlite:///sweep.db or postgresql://USER@HOST/NAME",
        ) from None
    except (ImportError, SQLAlchemyError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise UserError(
            f"The database {make_url(url).render_as_string()} cannot be opened: {reason}",
            "Check the address, and install the package of its driver.",
        ) from error
