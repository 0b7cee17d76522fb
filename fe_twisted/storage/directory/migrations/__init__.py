"""From any earlier version to this one, forward only (Alembic).

:func:`upgrade` runs inside a transaction of the caller, which is committed whole or not at all.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from fe_twisted.base.errors import NewerFile
from fe_twisted.storage.directory.schema import HEAD

# Alembic takes a tenth of the time in which a process starts, and there is hardly ever anything to upgrade: it is imported when there is.
if TYPE_CHECKING:
    from alembic.config import Config

#: Any number; it is what two processes that upgrade one PostgreSQL database at the same time wait for each other by.
_LOCK = 7_361_402_117
_alembic = threading.Lock()


def config(connection: Connection | None = None) -> Config:
    """Alembic's settings; the scripts are found as part of the package, so also in a wheel."""
    from alembic.config import Config

    settings = Config()
    settings.set_main_option("script_location", "fe_twisted.storage.directory:migrations")
    settings.set_main_option("path_separator", "os")
    settings.attributes["connection"] = connection
    return settings


def revision(connection: Connection) -> str | None:
    """What the database says it is; None when it says nothing."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return None if found is None else str(found)


def upgrade(connection: Connection) -> None:
    """Bring the database to :data:`HEAD`, from nothing or from an earlier version.

    :raises NewerFile: it is of a version that this program does not know; it stays as it is.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK})
    current = revision(connection)
    if current == HEAD:
        return
    from alembic import command
    from alembic.script import ScriptDirectory

    settings = config(connection)
    known = {script.revision for script in ScriptDirectory.from_config(settings).walk_revisions()}
    if current is not None and current not in known:
        raise NewerFile("the directory was written by a newer version of this program", reason=f"revision {current}")
    # Alembic hands the connection to env.py through module globals, so two threads would run on each other's.
    with _alembic:
        command.upgrade(settings, "head")
