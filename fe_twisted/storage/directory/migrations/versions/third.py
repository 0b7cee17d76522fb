"""A secret that all boxes with this directory share."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """There is none yet: the first box that needs it makes it."""
    op.add_column("meta", sa.Column("shared_secret", sa.LargeBinary))
