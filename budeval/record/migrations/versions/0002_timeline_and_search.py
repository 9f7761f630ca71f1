"""timeline, and columns to find evaluations by"""

from typing import Any

import sqlalchemy as sa
from alembic import op

from budeval.record.tables import UtcDateTime

revision = "0002"
down_revision = "0001"

_EVALUATIONS = sa.table(
    "evaluations",
    sa.column("eval_id", sa.String),
    sa.column("definition", sa.JSON),
    sa.column("experiment_id", sa.String),
    sa.column("model_name", sa.String),
    sa.column("engine", sa.String),
    sa.column("source", sa.String),
)


def upgrade() -> None:
    """Forward."""
    with op.batch_alter_table("evaluations", schema=None) as batch_op:
        batch_op.add_column(sa.Column("experiment_id", sa.String(length=36), nullable=True))
        for name in ("model_name", "engine", "source"):
            batch_op.add_column(sa.Column(name, sa.String(length=256), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("newest_sequence", sa.Integer(), nullable=False, server_default="0"))
    _fill_from_definitions(op.get_bind())
    with op.batch_alter_table("evaluations", schema=None) as batch_op:
        for name in ("model_name", "engine", "source", "newest_sequence"):
            batch_op.alter_column(name, server_default=None)
        batch_op.drop_index("ix_evaluations_created_at")
        batch_op.create_index("ix_evaluations_experiment_id", ["experiment_id"], unique=False)
        batch_op.create_index("evaluations_by_creation", ["created_at", "eval_id"], unique=False)
        batch_op.create_index("evaluations_by_model", ["model_name", "eval_id"], unique=False)
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.create_index("runs_by_dataset", ["dataset_id", "eval_id"], unique=False)
    _create_timeline()


def downgrade() -> None:
    """Back."""
    op.drop_table("timeline")
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.drop_index("runs_by_dataset")
    with op.batch_alter_table("evaluations", schema=None) as batch_op:
        for name in ("evaluations_by_model", "evaluations_by_creation", "ix_evaluations_experiment_id"):
            batch_op.drop_index(name)
        batch_op.create_index("ix_evaluations_created_at", ["created_at"], unique=False)
        for name in ("newest_sequence", "source", "engine", "model_name", "experiment_id"):
            batch_op.drop_column(name)


def _create_timeline() -> None:
    op.create_table(
        "timeline",
        sa.Column("eval_id", sa.String(length=36), nullable=False),
        sa.Column("fingerprint", sa.String(length=64), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("title", sa.String(length=256), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("run_id", sa.String(length=256), nullable=True),
        sa.Column("reason", sa.String(length=256), nullable=True),
        sa.Column("actor", sa.String(length=256), nullable=True),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.Column("first_at", UtcDateTime(), nullable=False),
        sa.Column("at", UtcDateTime(), nullable=False),
        sa.ForeignKeyConstraint(["eval_id"], ["evaluations.eval_id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("eval_id", "fingerprint"),
    )
    with op.batch_alter_table("timeline", schema=None) as batch_op:
        batch_op.create_index("timeline_in_order", ["eval_id", "sequence"], unique=True)


def _fill_from_definitions(connection: sa.Connection) -> None:
    for eval_id, definition in connection.execute(sa.select(_EVALUATIONS.c.eval_id, _EVALUATIONS.c.definition)).all():
        found = sa.update(_EVALUATIONS).where(_EVALUATIONS.c.eval_id == eval_id).values(_found(definition))
        connection.execute(found)


def _found(definition: dict[str, Any]) -> dict[str, Any]:
    return {
        "experiment_id": definition.get("experiment_id"),
        "model_name": definition["model"]["model_name"],
        "engine": definition["engine"],
        "source": definition["source"],
    }
