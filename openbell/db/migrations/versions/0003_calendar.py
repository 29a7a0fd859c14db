"""The calendar's overrides, what a slot knows of its schedule's days, and pruning by time"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "calendar_override",
        sa.Column("segment", sa.String(), nullable=False),
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("hours", sa.JSON(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("segment", "day"),
    )
    op.create_index("ix_occurrence_instant", "occurrence", ["instant"], unique=False)
    with op.batch_alter_table("slot") as slot:
        slot.add_column(
            sa.Column("start_failures", sa.Integer(), nullable=False, server_default="0")
        )
        slot.add_column(sa.Column("warning", sa.String(), nullable=True))
        slot.add_column(sa.Column("accounted_until", sa.DateTime(timezone=True), nullable=True))
        slot.create_index("ix_slot_next_start", ["next_start"], unique=False)
        slot.create_index("ix_slot_next_stop", ["next_stop"], unique=False)
    with op.batch_alter_table("run") as run:
        run.add_column(sa.Column("skipped", sa.Integer(), nullable=False, server_default="0"))
        run.add_column(sa.Column("stop_asked_at", sa.DateTime(timezone=True), nullable=True))
