"""Database errors become ours; SQL, parameters and driver texts go into the private reason at most.

Parameters are never part of it: they may hold addresses and wrapped keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from fe_twisted.base.errors import AlreadyExists, Busy, DamagedFile, DiskFull, Later, MailError, StorageFailed

#: What SQLite calls its result codes, in the words of its messages (sqlite3_errstr).
_BY_TEXT: tuple[tuple[str, type[MailError], str], ...] = (
    ("database is locked", Busy, "the directory is busy, try again"),
    ("database table is locked", Busy, "the directory is busy, try again"),
    ("database or disk is full", DiskFull, DiskFull.default),
    ("file is not a database", DamagedFile, "the directory file is damaged"),
    ("disk image is malformed", DamagedFile, "the directory file is damaged"),
)
#: PostgreSQL (appendix A of its manual), by class or whole: lock not available, deadlock, serialization, statement timeout.
_BUSY_STATES = frozenset({"55P03", "40P01", "40001", "57014"})


@contextmanager
def translated() -> Iterator[None]:
    """Let only errors of :mod:`fe_twisted.base.errors` out of the block."""
    try:
        yield
    except SQLAlchemyError as error:
        raise translate(error) from error


def translate(error: SQLAlchemyError) -> MailError:
    """The error of ours that says the same."""
    if isinstance(error, PoolTimeout):
        return Busy("the directory is busy, try again", reason="connection pool exhausted")
    if not isinstance(error, DBAPIError):
        return StorageFailed(reason=type(error).__name__)
    text = str(error.orig)
    state = getattr(error.orig, "sqlstate", None)
    if isinstance(error, IntegrityError):
        # SQLSTATE 23505 and SQLite's wording are uniqueness; other constraints are bugs.
        if state == "23505" or "UNIQUE constraint" in text:
            return AlreadyExists(reason=text.partition("\n")[0])
        return StorageFailed(reason=text.partition("\n")[0])
    for words, kind, public in _BY_TEXT:
        if words in text:
            return kind(public, reason=text)
    if state in _BUSY_STATES:
        return Busy("the directory is busy, try again", reason=f"SQLSTATE {state}")
    if state is not None and state.startswith("53"):
        return DiskFull(reason=f"SQLSTATE {state}") if state == "53100" else Later(reason=f"SQLSTATE {state}")
    if error.connection_invalidated or (isinstance(error, OperationalError) and "psycopg" in type(error.orig).__module__):
        # libpq passes a password file over that is not there or that others can read, and says so to a terminal at most.
        remedy = "; is there a line for it in the file that passfile names, and chmod 600?" if "no password supplied" in text else ""
        return Later("the directory cannot be reached, try again later", reason=text.partition("\n")[0] + remedy)
    return StorageFailed(reason=f"{type(error.orig).__name__}: {text.partition(chr(10))[0]}")
