"""The first version: accounts, domains, aliases, key slots."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make all tables.  Written out rather than taken from ``schema``, which is always the newest version."""
    meta = op.create_table(
        "meta",
        sa.Column("id", sa.Integer, autoincrement=False, nullable=False),
        sa.Column("generation", sa.BigInteger, nullable=False),
        sa.CheckConstraint("id = 1", name="ck_meta_one_row"),
        sa.PrimaryKeyConstraint("id", name="pk_meta"),
    )
    op.bulk_insert(meta, [{"id": 1, "generation": 0}])
    op.create_table(
        "accounts",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_accounts"),
        sa.UniqueConstraint("name", name="uq_accounts_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "domains",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("account_id", sa.Integer, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="fk_domains_account_id"),
        sa.PrimaryKeyConstraint("id", name="pk_domains"),
        sa.UniqueConstraint("name", name="uq_domains_name"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_domains_account_id", "domains", ["account_id"])
    op.create_table(
        "aliases",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("domain_id", sa.Integer, nullable=False),
        sa.Column("local", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("mailbox_id", sa.Text),
        sa.Column("sealing_key", sa.LargeBinary),
        sa.Column("location", sa.Text, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["domain_id"], ["domains.id"], name="fk_aliases_domain_id"),
        sa.PrimaryKeyConstraint("id", name="pk_aliases"),
        sa.UniqueConstraint("domain_id", "local", name="uq_aliases_domain_id_local"),
        sa.UniqueConstraint("mailbox_id", name="uq_aliases_mailbox_id"),
        sa.CheckConstraint("(mailbox_id IS NULL) = (sealing_key IS NULL)", name="ck_aliases_mailbox_whole"),
        sqlite_autoincrement=True,
    )
    postmasters = sa.text("local = 'postmaster'")
    op.create_index("ix_aliases_postmasters", "aliases", ["domain_id"], sqlite_where=postmasters, postgresql_where=postmasters)
    readers = sa.text("state = 'enabled' AND mailbox_id IS NOT NULL")
    op.create_index("ix_aliases_readers", "aliases", ["domain_id", "id"], sqlite_where=readers, postgresql_where=readers)
    op.create_table(
        "key_slots",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("alias_id", sa.Integer, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("label", sa.Text, nullable=False),
        sa.Column("kdf", sa.Text, nullable=False),
        sa.Column("salt", sa.LargeBinary, nullable=False),
        sa.Column("wrapped", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.Text, nullable=False),
        sa.ForeignKeyConstraint(["alias_id"], ["aliases.id"], name="fk_key_slots_alias_id", ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name="pk_key_slots"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_key_slots_alias_id", "key_slots", ["alias_id"])
