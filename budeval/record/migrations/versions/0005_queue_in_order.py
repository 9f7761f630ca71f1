"""the queue in its order"""

from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Forward."""
    op.create_index("evaluations_in_queue", "evaluations", ["status", "admitted_at", "last_heard_at", "eval_id"])


def downgrade() -> None:
    """Back."""
    op.drop_index("evaluations_in_queue", "evaluations")
