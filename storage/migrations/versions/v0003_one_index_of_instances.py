"""The index of `instance.sop_uid` goes: the unique key (sop_uid, digest, series_id) begins with the same column and serves as well.

A new instance falls anywhere into either of them, so each cost a page of its own for every reception once there are many instances.
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.drop_index("ix_instance_sop_uid", "instance")
