"""The learned waits: table `sender_habit` and the public view `waits`."""

from alembic import op
from sqlalchemy import Column, Float, Integer, String, Text, text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

WAITS = """
create view waits as
select calling_ae, modality, wait_seconds, contiguous_seconds, longest_gap_seconds, longest_between_seconds, series_seen, series_split,
       learned_at
from sender_habit
"""


def upgrade() -> None:
    op.create_table(
        "sender_habit",
        Column("calling_ae", String, primary_key=True), Column("modality", String, primary_key=True),
        Column("wait_seconds", Float), Column("contiguous_seconds", Float),
        Column("longest_gap_seconds", Float, nullable=False), Column("longest_between_seconds", Float, nullable=False),
        Column("series_seen", Integer, nullable=False), Column("series_split", Integer, nullable=False),
        Column("history", Text, nullable=False), Column("learned_at", String, nullable=False))
    op.get_bind().execute(text(WAITS))
