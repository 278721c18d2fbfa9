"""Marks of retention: files that were deleted while their rows stay."""

from alembic import op
from sqlalchemy import Column, String

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("instance", Column("deleted_at", String))
    op.add_column("result_object", Column("deleted_at", String))
    op.add_column("series", Column("emptied_at", String))
    op.create_index("ix_series_kept", "series", ["emptied_at", "last_at"])
