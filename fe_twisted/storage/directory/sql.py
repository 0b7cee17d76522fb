"""The directory over SQLAlchemy Core, one code path for SQLCipher and PostgreSQL."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, delete, event, insert, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import PoolProxiedConnection
from sqlalchemy.sql import Executable

from fe_twisted.base.addresses import Address, normalise_domain, parse_address
from fe_twisted.base.errors import (
    AlreadyExists,
    BadAddress,
    BadSettings,
    Busy,
    DamagedFile,
    NotFound,
    Refused,
    StorageFailed,
    UnknownDomain,
)
from fe_twisted.storage.directory import embedded, migrations, statements
from fe_twisted.storage.directory.api import Account, Alias, AliasState, Domain, KeySlot
from fe_twisted.storage.directory.faults import translate, translated
from fe_twisted.storage.directory.schema import HEAD, accounts, aliases, domains, key_slots, meta


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def open_directory(
    url_or_path: str | Path,
    key: bytes,
    *,
    create: bool = True,
    now: Callable[[], datetime.datetime] = _utc_now,
) -> SqlDirectory:
    """Open the directory, make it if it is not there, and bring it to this program's version.

    :param url_or_path: the path of an embedded directory, or ``postgresql+psycopg://…``.
    :param key: 32 octets that encrypt the embedded file.  PostgreSQL's data are as safe as its disk is; nothing in them opens a mailbox.
    :param create: False to refuse when there is no such file.
    :param now: the current time, aware.
    :raises BadSettings: the URL cannot be used, the folder is not there, or the key is not the file's.
    :raises DamagedFile: what is there is no directory.
    :raises NewerFile: a newer version of the program wrote it.
    :raises Later: PostgreSQL cannot be reached, or somebody else holds the lock.
    """
    if len(key) != 32:
        raise BadSettings("the directory key must have 32 octets")
    if isinstance(url_or_path, str) and "://" in url_or_path:
        directory = SqlDirectory(_postgresql(url_or_path), embedded=False, now=now)
    else:
        path = Path(url_or_path)
        if not create and not path.exists():
            raise BadSettings(f"there is no directory {path}; make one with init, or restore it from a backup")
        embedded.prepare(path, key, migrations.upgrade)
        directory = SqlDirectory(embedded.engine_for(path, key), embedded=True, now=now)
    try:
        directory.upgrade()
    except BaseException:
        directory.close()
        raise
    return directory


def _postgresql(url: str) -> Engine:
    """:raises BadSettings: not a URL of PostgreSQL."""
    try:
        parsed = make_url(url)
        if parsed.drivername != "postgresql+psycopg":
            raise BadSettings(f"a directory is a file or postgresql+psycopg://…, not {parsed.drivername}://…")
        engine = create_engine(
            parsed,
            pool_size=10,
            max_overflow=0,
            pool_timeout=10,
            hide_parameters=True,
            connect_args={
                "connect_timeout": 5,
                "application_name": "forwardemail",
                "options": "-c statement_timeout=10000 -c lock_timeout=5000 -c default_transaction_isolation=read\\ committed",
            },
        )
    except (ArgumentError, NoSuchModuleError, ValueError) as error:
        raise BadSettings("the directory's URL cannot be used", reason=type(error).__name__) from error
    # A commit that was answered must be on disk even where the server's own setting is laxer.
    event.listen(engine, "connect", _durable)
    return engine


def _durable(connection: Any, _record: object) -> None:
    connection.execute("SET synchronous_commit = on")
    connection.commit()


class SqlDirectory:
    """The directory; implements :class:`fe_twisted.storage.directory.api.Directory`.  May be used from several threads at once.

    :param embedded: True for a file, whose look-ups are quick enough for the reactor.
    """

    def __init__(self, engine: Engine, *, embedded: bool, now: Callable[[], datetime.datetime] = _utc_now) -> None:
        self.embedded = embedded
        self._engine = engine
        # One statement is one transaction; PostgreSQL is spared the BEGIN and ROLLBACK around it.
        self._reader = engine if embedded else engine.execution_options(isolation_level="AUTOCOMMIT")
        self._writer = engine.execution_options(write=True)
        self._now = now
        self._watching: PoolProxiedConnection | None = None

    # -- accounts and domains ---------------------------------------------------------------------

    def add_account(self, name: str) -> Account:
        """:raises AlreadyExists:"""
        with self._write() as connection, _unique(f"there is an account {name!r} already"):
            row = connection.execute(insert(accounts).values(name=name, created_at=self._time()).returning(accounts.c.id)).one()
        return Account(row[0], name)

    def accounts(self) -> list[Account]:
        """All, by name."""
        return sorted((Account(*row) for row in self._read(select(accounts.c.id, accounts.c.name))), key=lambda found: found.name)

    def add_domain(self, name: str, account_id: int) -> Domain:
        """:raises AlreadyExists, BadAddress:
        :raises NotFound: no such account.
        """
        name = normalise_domain(name)
        if name.startswith("["):
            raise BadAddress("an address literal cannot be one of our domains")
        with self._write() as connection, _unique(f"the domain {name} is there already"):
            if connection.execute(select(accounts.c.id).where(accounts.c.id == account_id)).first() is None:
                raise NotFound("no such account")
            values = {"name": name, "account_id": account_id, "created_at": self._time()}
            row = connection.execute(insert(domains).values(values).returning(domains.c.id)).one()
        return Domain(row[0], name, account_id)

    def domain(self, name: str) -> Domain | None:
        """The domain of this name (any case, U-label or A-label).

        :raises BadAddress:
        """
        rows = self._read(statements.DOMAIN, {"domain": normalise_domain(name)})
        return Domain(*rows[0]) if rows else None

    def domains(self) -> list[Domain]:
        """All, by name."""
        rows = self._read(select(domains.c.id, domains.c.name, domains.c.account_id))
        return sorted((Domain(*row) for row in rows), key=lambda found: found.name)

    def remove_domain(self, name: str) -> None:
        """:raises NotFound: no such domain.
        :raises Refused: it still has aliases.
        """
        name = normalise_domain(name)
        with self._write() as connection:
            domain_id = _domain_id(connection, name)
            if domain_id is None:
                raise NotFound(f"{name} is not a domain of this server")
            if connection.execute(select(aliases.c.id).where(aliases.c.domain_id == domain_id).limit(1)).first() is not None:
                raise Refused(f"{name} still has aliases; remove them first")
            connection.execute(delete(domains).where(domains.c.id == domain_id))

    # -- aliases ----------------------------------------------------------------------------------

    def add_alias(self, address: str, location: str = "local") -> Alias:
        """:param location: which primary will have the mailbox.
        :raises AlreadyExists, UnknownDomain, BadAddress:
        """
        wanted = parse_address(address).normalise()
        with self._write() as connection, _unique(f"the alias {wanted} is there already"):
            domain_id = _domain_id(connection, wanted.domain)
            if domain_id is None:
                raise UnknownDomain
            state, created_at = AliasState.ENABLED, self._time()
            values = {
                "domain_id": domain_id,
                "local": wanted.local,
                "state": state.value,
                "location": location,
                "created_at": created_at,
            }
            row = connection.execute(insert(aliases).values(values).returning(aliases.c.id)).one()
        return Alias(row[0], str(wanted), state, None, None, location, created_at)

    def alias(self, address: str) -> Alias | None:
        """Exactly this address, after normalisation; plus-addressing is the caller's business.

        :raises BadAddress:
        """
        rows = self._read(statements.BY_ADDRESS, _named(parse_address(address).normalise()))
        return _alias(rows[0]) if rows else None

    def aliases(self, domain: str | None = None) -> list[Alias]:
        """All, or those of one domain, by address.

        :raises BadAddress:
        """
        statement = select(*statements.ALIAS).where(statements.AT_HOME)
        if domain is not None:
            statement = statement.where(domains.c.name == normalise_domain(domain))
        # Sorted here, because databases sort text by their locale.
        return sorted(map(_alias, self._read(statement)), key=lambda found: found.address)

    def remove_alias(self, address: str) -> Alias:
        """Remove the alias and its key slots; returns what was removed, so that the caller can remove the files.

        :raises NotFound, BadAddress:
        """
        with self._write() as connection:
            found = _find(connection, address)
            connection.execute(delete(key_slots).where(key_slots.c.alias_id == found.id))
            connection.execute(delete(aliases).where(aliases.c.id == found.id))
        return found

    def set_alias_state(self, address: str, state: AliasState) -> None:
        """:raises NotFound, BadAddress:"""
        with self._write() as connection:
            found = _find(connection, address)
            connection.execute(update(aliases).where(aliases.c.id == found.id).values(state=state.value))

    def set_hidden(self, address: str, capabilities: Iterable[str]) -> None:
        """:raises NotFound, BadAddress:"""
        hidden = " ".join(sorted({name.upper() for name in capabilities}))
        with self._write() as connection:
            found = _find(connection, address)
            connection.execute(update(aliases).where(aliases.c.id == found.id).values(hidden=hidden))

    # -- locations --------------------------------------------------------------------------------

    def elsewhere(self, location: str) -> dict[str, str]:
        """The locations of all mailboxes that are not at ``location``, by mailbox id."""
        return dict(tuple(row) for row in self._read(statements.ELSEWHERE, {"location": location}))

    def set_location(self, mailbox_id: str, location: str, *, replaces: str) -> None:
        """Say that a mailbox is at another primary now.  To say so again changes nothing and is no error.

        :param replaces: where it has been.
        :raises NotFound: nobody has the mailbox (any more).
        :raises Refused: it is at a third place; nothing was changed.
        """
        with self._write() as connection:
            found = connection.execute(select(aliases.c.location).where(aliases.c.mailbox_id == mailbox_id)).scalar()
            if found is None:
                raise NotFound("no alias has this mailbox any more")
            if found not in (replaces, location):
                raise Refused(f"the mailbox is at {found} and not at {replaces}")
            connection.execute(update(aliases).where(aliases.c.mailbox_id == mailbox_id).values(location=location))

    def locations(self) -> dict[str, int]:
        """The number of aliases of each location, those without a mailbox included."""
        return dict(tuple(row) for row in self._read(statements.LOCATIONS))

    def rename_location(self, old: str, new: str) -> int:
        """Give the primary of a location another name, in all its aliases at once; returns how many there are.

        :raises NotFound: no alias is there.
        :raises AlreadyExists: aliases are at the new one already; nothing was changed.
        """
        with self._write() as connection:
            found = dict(tuple(row) for row in connection.execute(statements.LOCATIONS))
            if old not in found:
                raise NotFound(f"no alias is at {old}; there are: {', '.join(sorted(found)) or 'none'}")
            if new in found:
                raise AlreadyExists(f"{found[new]} aliases are at {new} already; two primaries cannot become one by a name")
            connection.execute(update(aliases).where(aliases.c.location == old).values(location=new))
            return int(found[old])

    def place_alias(self, address: str, location: str) -> Alias:
        """Say which primary will have the mailbox of an alias that has none yet.

        :raises NotFound, BadAddress:
        :raises Busy: it has one meanwhile; nothing was changed.
        """
        with self._write() as connection:
            found = _find(connection, address)
            if found.mailbox_id is not None:
                raise Busy(f"{found.address} has a mailbox meanwhile; nothing was done")
            connection.execute(update(aliases).where(aliases.c.id == found.id).values(location=location))
            return dataclasses.replace(found, location=location)

    # -- mailboxes and keys -----------------------------------------------------------------------

    def set_mailbox(self, alias_id: int, mailbox_id: str, sealing_key: bytes, slots: list[KeySlot], *, replaces: str | None = None) -> None:
        """Give the alias a (new) mailbox and replace all its key slots, in one transaction.

        :raises NotFound: the alias is not there any more.
        :raises Busy: it has another mailbox than ``replaces``.
        """
        with self._write() as connection:
            row = connection.execute(select(aliases.c.mailbox_id).where(aliases.c.id == alias_id)).first()
            if row is None:
                raise NotFound("the alias is not there any more")
            if row[0] != replaces:
                raise Busy("somebody else changed this alias's mailbox at the same time; nothing was done")
            values = {"mailbox_id": mailbox_id, "sealing_key": sealing_key}
            connection.execute(update(aliases).where(aliases.c.id == alias_id).values(values))
            connection.execute(delete(key_slots).where(key_slots.c.alias_id == alias_id))
            if slots:
                connection.execute(insert(key_slots), [_slot_values(alias_id, slot) for slot in slots])

    def key_slots(self, alias_id: int) -> list[KeySlot]:
        """All slots of the alias, the oldest first."""
        return [KeySlot(*row) for row in self._read(statements.SLOTS, {"alias": alias_id})]

    def replace_slot(self, alias_id: int, slot_id: int, new: KeySlot) -> None:
        """Put a rewrapped key in the place of a slot, atomically.  It gets a new id, so whoever else wanted to replace it is told.

        :raises NotFound: the slot is not there any more (someone else changed it).
        """
        with self._write() as connection:
            gone = delete(key_slots).where(key_slots.c.alias_id == alias_id, key_slots.c.id == slot_id)
            if connection.execute(gone).rowcount != 1:
                raise NotFound("this password was changed by somebody else at the same time; nothing was done")
            connection.execute(insert(key_slots).values(_slot_values(alias_id, new)))

    # -- what servers ask, see lookup -------------------------------------------------------------

    def recipient(self, address: Address) -> tuple[bool, Alias | None]:
        """Whether the domain is ours, and the alias of this address, or else of it without plus-addressing.

        :param address: in normal form.
        """
        base = address.base_address().local
        rows = self._read(statements.RECIPIENT, {"domain": address.domain, "local": address.local, "base": base})
        found = [row[1:] for row in rows if row[1] is not None]
        # The exact one first, when both are there.
        found.sort(key=lambda row: row[1] != address.local)
        return bool(rows), _alias(found[0]) if found else None

    def postmaster(self, domain: str | None) -> Alias | None:
        """Who reads ``postmaster`` of a domain, or of all: the alias of this name, or else the oldest enabled alias with a mailbox."""
        for statement in statements.POSTMASTERS[domain is not None]:
            rows = self._read(statement, {"domain": domain} if domain is not None else {})
            if rows:
                return _alias(rows[0])
        return None

    def login(self, address: Address) -> tuple[Alias, list[KeySlot]] | None:
        """The alias of exactly this address with its key slots, the oldest first.

        :param address: in normal form.
        """
        rows = self._read(statements.LOGIN, _named(address))
        if not rows:
            return None
        width = len(statements.ALIAS)
        return _alias(rows[0][:width]), [KeySlot(*row[width:]) for row in rows if row[width] is not None]

    def owner(self, mailbox_id: str) -> Alias | None:
        """The alias that has a mailbox; None when nobody has it (any more)."""
        rows = self._read(statements.OWNER, {"mailbox": mailbox_id})
        return _alias(rows[0]) if rows else None

    def generation(self) -> int:
        """A number that grows with every change."""
        return int(self._read(statements.GENERATION)[0][0])

    def shared_secret(self, offer: bytes) -> bytes:
        """32 octets that are the same for every box with this directory, and stay.

        :param offer: what they become if nobody asked before.
        """
        found = self._read(statements.SHARED)[0][0]
        if found is None:
            with translated(), self._writer.begin() as connection:
                connection.execute(update(meta).where(meta.c.shared_secret.is_(None)).values(shared_secret=offer))
                found = connection.execute(statements.SHARED).scalar_one()
        return bytes(found)

    def version(self) -> int:
        """A number that is another one after any commit by anybody, for an embedded directory; microseconds, no query.

        It means nothing to another process or after a restart.

        :raises StorageFailed, Busy: the file cannot be read.
        """
        with translated():
            if self._watching is None:
                # A connection of its own: SQLite tells each one only of the commits of others.
                self._watching = self._engine.raw_connection()
                self._watching.detach()
        cursor = self._watching.cursor()
        try:
            cursor.execute("PRAGMA data_version")
            return int(next(iter(cursor.fetchall()))[0])
        except self._engine.dialect.loaded_dbapi.Error as error:
            raise StorageFailed(reason=f"data_version: {error}") from error
        finally:
            cursor.close()

    # -- inside -----------------------------------------------------------------------------------

    def upgrade(self) -> None:
        """Bring the database to :data:`fe_twisted.storage.directory.schema.HEAD`.

        :raises NewerFile: it is newer than the program.
        :raises DamagedFile: the file opens and is no directory.
        """
        with translated():
            with self._reader.connect() as connection:
                current = migrations.revision(connection)
            if current == HEAD:
                return
            if self.embedded and current is None:
                raise DamagedFile("the file opens with the server key, and is no directory")
            with self._writer.begin() as connection:
                migrations.upgrade(connection)

    def close(self) -> None:
        """Let go of all connections."""
        if self._watching is not None:
            self._watching.close()
        self._engine.dispose()

    def _time(self) -> str:
        return self._now().astimezone(datetime.UTC).isoformat(timespec="seconds")

    def _read(self, statement: Executable, values: dict[str, Any] | None = None) -> list[Any]:
        """All rows of one statement.  A connection that had died in the pool is replaced once."""
        for last in (False, True):
            try:
                with self._reader.connect() as connection:
                    return list(connection.execute(statement, values or {}))
            except DBAPIError as error:
                if last or not error.connection_invalidated:
                    raise translate(error) from error
            except SQLAlchemyError as error:
                raise translate(error) from error
        raise AssertionError("the second round returns or raises")

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """For :mod:`fe_twisted.storage.directory.copy`: a transaction that may write."""
        with translated(), self._writer.begin() as connection:
            yield connection

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        """A transaction that holds the write lock from its start, and counts the generation up."""
        with translated(), self._writer.begin() as connection:
            connection.execute(statements.COUNT_UP)
            yield connection


@contextmanager
def _unique(public: str) -> Iterator[None]:
    """Give a violated uniqueness its sentence."""
    try:
        yield
    except DBAPIError as error:
        mapped = translate(error)
        raise AlreadyExists(public) if isinstance(mapped, AlreadyExists) else mapped from error


def _named(address: Address) -> dict[str, str]:
    return {"local": address.local, "domain": address.domain}


def _alias(row: Any) -> Alias:
    id, local, domain, state, mailbox_id, sealing_key, location, created_at, hidden = row
    address = str(Address(local, domain))
    return Alias(id, address, AliasState(state), mailbox_id, sealing_key, location, created_at, tuple(hidden.split()))


def _slot_values(alias_id: int, slot: KeySlot) -> dict[str, object]:
    return {
        "alias_id": alias_id,
        "kind": slot.kind,
        "label": slot.label,
        "kdf": slot.kdf,
        "salt": slot.salt,
        "wrapped": slot.wrapped,
        "created_at": slot.created_at,
    }


def _domain_id(connection: Connection, name: str) -> int | None:
    found: int | None = connection.execute(statements.DOMAIN, {"domain": name}).scalar()
    return found


def _find(connection: Connection, address: str) -> Alias:
    """:raises NotFound, BadAddress:"""
    wanted = parse_address(address).normalise()
    row = connection.execute(statements.BY_ADDRESS, _named(wanted)).first()
    if row is None:
        raise NotFound(f"there is no alias {wanted}")
    return _alias(row)
