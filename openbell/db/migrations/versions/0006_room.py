"""What runs need, and since when starts wait"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.add_column("slot", sa.Column("waiting_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column("slot", sa.Column("working_memory_bytes", sa.BigInteger(), nullable=True))
    for name in ("expected_memory_bytes", "working_memory_bytes"):
        op.add_column("run", sa.Column(name, sa.BigInteger(), nullable=True))
