"""Alembic's entry: it works on the connection that openbell.db.migrate hands over."""

from typing import Any, Literal

from alembic import context
from sqlmodel.sql.sqltypes import AutoString

from openbell.db import models


def render(kind: str, value: Any, _context: Any) -> str | Literal[False]:
    """Migrations name plain column types: they must not change when the models do."""
    if kind == "type" and isinstance(value, models.UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(value, AutoString):
        return "sa.String()"
    return False


context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=models.SQLModel.metadata,
    render_as_batch=True,
    render_item=render,
)
with context.begin_transaction():
    context.run_migrations()
