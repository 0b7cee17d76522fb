"""The tables.  A change here needs a migration, and :data:`HEAD` its name."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)

#: The revision that this program reads and writes; the newest in :mod:`fe_twisted.storage.directory.migrations`.
HEAD = "0003"

#: Constraints have names, so that a migration can change them.
metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

#: One row: how often anything changed, and a secret that all boxes with this directory share (32 octets; None until one of them asks).
meta = Table(
    "meta",
    metadata,
    Column("id", Integer, CheckConstraint("id = 1", name="one_row"), primary_key=True, autoincrement=False),
    Column("generation", BigInteger, nullable=False),
    Column("shared_secret", LargeBinary),
)

accounts = Table(
    "accounts",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("created_at", Text, nullable=False),
    sqlite_autoincrement=True,
)

#: ``name`` is the lower-case A-label form.
domains = Table(
    "domains",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    Column("account_id", Integer, ForeignKey("accounts.id"), nullable=False, index=True),
    Column("created_at", Text, nullable=False),
    sqlite_autoincrement=True,
)

#: Who can read mail that must reach somebody, the oldest of each domain first.
_READERS = text("state = 'enabled' AND mailbox_id IS NOT NULL")

_POSTMASTERS = text("local = 'postmaster'")

#: ``local`` is the meaning of the local part in normal form, without quotes; ``hidden`` are names of IMAP capabilities with spaces between.
aliases = Table(
    "aliases",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("domain_id", Integer, ForeignKey("domains.id"), nullable=False),
    Column("local", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("mailbox_id", Text, unique=True),
    Column("sealing_key", LargeBinary),
    Column("location", Text, nullable=False),
    Column("created_at", Text, nullable=False),
    Column("hidden", Text, nullable=False, server_default=""),
    UniqueConstraint("domain_id", "local"),
    CheckConstraint("(mailbox_id IS NULL) = (sealing_key IS NULL)", name="mailbox_whole"),
    Index("ix_aliases_postmasters", "domain_id", sqlite_where=_POSTMASTERS, postgresql_where=_POSTMASTERS),
    Index("ix_aliases_readers", "domain_id", "id", sqlite_where=_READERS, postgresql_where=_READERS),
    sqlite_autoincrement=True,
)

key_slots = Table(
    "key_slots",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("alias_id", Integer, ForeignKey("aliases.id", ondelete="CASCADE"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("label", Text, nullable=False),
    Column("kdf", Text, nullable=False),
    Column("salt", LargeBinary, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    Column("created_at", Text, nullable=False),
    Index(None, "alias_id"),
    sqlite_autoincrement=True,
)
