"""A strategy's policy in one column, and what a run leaves behind

It drops what 0001 made, `strategy.restart` and `strategy.stop_grace_s`, at once: nothing was
released that would read them.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

STRATEGY = sa.table(
    "strategy",
    sa.column("id", sa.String()),
    sa.column("restart", sa.String()),
    sa.column("stop_grace_s", sa.Float()),
    sa.column("policy", sa.JSON()),
)


def upgrade() -> None:
    op.add_column(
        "strategy",
        sa.Column("policy", sa.JSON(), nullable=False, server_default=sa.text("'{}'")),
    )
    _move_what_was_set()
    op.drop_column("strategy", "restart")
    op.drop_column("strategy", "stop_grace_s")

    op.add_column("run", sa.Column("headline", sa.String(), nullable=True))
    op.add_column("run", sa.Column("last_lines", sa.JSON(), nullable=True))
    op.add_column("run", sa.Column("peak_memory_bytes", sa.BigInteger(), nullable=True))
    op.add_column("run", sa.Column("cpu_s", sa.Float(), nullable=True))
    for name in ("refused", "out_of_memory"):
        op.add_column("run", sa.Column(name, sa.BigInteger(), nullable=False, server_default="0"))
    with op.batch_alter_table("run") as run:
        run.alter_column("exit_code", existing_type=sa.Integer(), type_=sa.BigInteger())
    op.drop_index("ix_run_strategy_id", "run")
    op.create_index("ix_run_strategy_id", "run", ["strategy_id", "epoch"], unique=False)


def _move_what_was_set() -> None:
    """A policy holds what differs from the defaults."""
    connection = op.get_bind()
    columns = (STRATEGY.c.id, STRATEGY.c.restart, STRATEGY.c.stop_grace_s)
    for strategy_id, restart, grace_s in connection.execute(sa.select(*columns)).all():
        policy: dict[str, Any] = {}
        if grace_s != 15:
            policy["stop"] = {"grace_s": grace_s}
        if restart != "on-failure":
            policy["restart"] = restart
        if policy:
            connection.execute(
                sa.update(STRATEGY).where(STRATEGY.c.id == strategy_id).values(policy=policy)
            )
