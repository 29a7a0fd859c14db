"""The environment of each version"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("version", sa.Column("requirements", sa.JSON(), nullable=True))
    for name in ("requires_python", "python", "lock_sha256"):
        op.add_column("version", sa.Column(name, sa.String(), nullable=True))
    op.add_column("version", sa.Column("lock", sa.LargeBinary(), nullable=True))
    op.add_column(
        "version", sa.Column("packages", sa.Integer(), nullable=False, server_default="0")
    )
    op.create_index("ix_version_lock_sha256", "version", ["lock_sha256"], unique=False)
