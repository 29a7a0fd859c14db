"""People: accounts, credentials, shares, sealed variables, the audit

It drops what 0001 made, `strategy.parameters`, at once: nothing was released that would read it.
"""

from datetime import UTC, datetime
from uuid import uuid4

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

VARIABLE = sa.table(
    "variable",
    *(sa.column(name, sa.String()) for name in ("id", "owner", "strategy_id", "name", "kind")),
    sa.column("sealed", sa.LargeBinary()),
    sa.column("updated_at", sa.DateTime(timezone=True)),
)
USER = sa.table(
    "user",
    *(sa.column(name, sa.String()) for name in ("id", "name", "name_key", "role")),
    sa.column("created_at", sa.DateTime(timezone=True)),
)


def upgrade() -> None:
    op.create_table(
        "api_token",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("scopes", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token_hash"),
    )
    op.create_index("ix_api_token_user_id", "api_token", ["user_id"], unique=False)

    op.create_table(
        "audit_entry",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("user_name", sa.String(), nullable=False),
        sa.Column("credential", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=True),
        sa.Column("strategy_id", sa.String(), nullable=True),
        sa.Column("before", sa.JSON(), nullable=True),
        sa.Column("after", sa.JSON(), nullable=True),
        sa.Column("detail", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_audit_entry_owner", "audit_entry", ["owner"], unique=False)
    op.create_index("ix_audit_entry_request", "audit_entry", ["request"], unique=False)
    op.create_index("ix_audit_entry_strategy_id", "audit_entry", ["strategy_id"], unique=False)
    op.create_index("ix_audit_entry_user_id", "audit_entry", ["user_id"], unique=False)

    op.create_table(
        "invitation",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=True),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token_hash"),
    )
    op.create_table(
        "session",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("token_hash"),
    )
    op.create_index("ix_session_user_id", "session", ["user_id"], unique=False)

    op.create_table(
        "share",
        sa.Column("strategy_id", sa.String(), nullable=False),
        sa.Column("user_id", sa.String(), nullable=False),
        sa.Column("permission", sa.String(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("strategy_id", "user_id"),
    )
    op.create_index("ix_share_user_id", "share", ["user_id"], unique=False)

    op.create_table(
        "user",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("name_key", sa.String(), nullable=False),
        sa.Column("role", sa.String(), nullable=False),
        sa.Column("password_hash", sa.String(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("disabled_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("name_key"),
    )
    op.create_table(
        "variable",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("strategy_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("source", sa.String(), nullable=True),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("retired_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        "ix_variable_name",
        "variable",
        ["owner", "strategy_id", "name"],
        unique=True,
        sqlite_where=sa.text("retired_at IS NULL"),
        postgresql_where=sa.text("retired_at IS NULL"),
    )
    op.create_index("ix_variable_strategy_id", "variable", ["owner", "strategy_id"], unique=False)

    _keep_parameters()
    op.drop_column("strategy", "parameters")
    op.add_column("slot", sa.Column("schedule_at", sa.DateTime(timezone=True), nullable=True))
    _add_the_local_user()
    _make_append_only()


def _keep_parameters() -> None:
    """As values that are not sealed yet, as the first byte tells; api seals them at its start."""
    connection = op.get_bind()
    strategy = sa.table(
        "strategy",
        sa.column("id", sa.String()),
        sa.column("owner", sa.String()),
        sa.column("parameters", sa.JSON()),
    )
    for strategy_id, owner, parameters in connection.execute(sa.select(strategy)).all():
        for name, value in parameters.items():
            connection.execute(
                sa.insert(VARIABLE).values(
                    id=uuid4().hex,
                    owner=owner,
                    strategy_id=strategy_id,
                    name=name,
                    kind="parameter",
                    sealed=b"\0" + value.encode(),
                    updated_at=datetime.now(UTC),
                )
            )


def _add_the_local_user() -> None:
    """Owner of what was uploaded before there were accounts."""
    op.bulk_insert(
        USER,
        [
            {
                "id": "local",
                "name": "local",
                "name_key": "local",
                "role": "admin",
                "created_at": datetime.now(UTC),
            }
        ],
    )


def _make_append_only() -> None:
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER audit_entry_no_{verb.lower()} BEFORE {verb} ON audit_entry"
                " BEGIN SELECT RAISE(ABORT, 'audit entries are never changed'); END"
            )
        op.execute(  # INSERT OR REPLACE deletes without a DELETE
            "CREATE TRIGGER audit_entry_no_replace BEFORE INSERT ON audit_entry"
            " WHEN NEW.id IN (SELECT id FROM audit_entry)"
            " BEGIN SELECT RAISE(ABORT, 'audit entries are never changed'); END"
        )
        return
    op.execute(
        "CREATE FUNCTION refuse_audit_change() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'audit entries are never changed'; END $$"
    )
    op.execute(
        "CREATE TRIGGER audit_entry_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_entry"
        " FOR EACH STATEMENT EXECUTE FUNCTION refuse_audit_change()"
    )
