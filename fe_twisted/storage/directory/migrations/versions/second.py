"""Capabilities of IMAP that are hidden from an alias's clients."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing is hidden from anybody so far."""
    op.add_column("aliases", sa.Column("hidden", sa.Text, nullable=False, server_default=""))
