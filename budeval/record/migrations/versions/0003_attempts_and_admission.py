"""attempts of an evaluation, who asked for it, and when it was let in"""

import sqlalchemy as sa
from alembic import op

from budeval.record.tables import UtcDateTime

revision = "0003"
down_revision = "0002"

_EVALUATIONS = sa.table("evaluations", sa.column("created_at", UtcDateTime), sa.column("admitted_at", UtcDateTime))


def upgrade() -> None:
    """Forward. What is there was let in when it was made, in its first attempt."""
    with op.batch_alter_table("evaluations", schema=None) as batch_op:
        batch_op.add_column(sa.Column("attempt", sa.Integer(), nullable=False, server_default="1"))
        batch_op.add_column(sa.Column("requested_by", sa.String(length=256), nullable=False, server_default=""))
        batch_op.add_column(sa.Column("admitted_at", UtcDateTime(), nullable=True))
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.add_column(sa.Column("attempt", sa.Integer(), nullable=False, server_default="1"))
    op.execute(sa.update(_EVALUATIONS).values(admitted_at=_EVALUATIONS.c.created_at))
    with op.batch_alter_table("evaluations", schema=None) as batch_op:
        batch_op.alter_column("attempt", server_default=None)
        batch_op.alter_column("requested_by", server_default=None)
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.alter_column("attempt", server_default=None)


def downgrade() -> None:
    """Back."""
    with op.batch_alter_table("runs", schema=None) as batch_op:
        batch_op.drop_column("attempt")
    with op.batch_alter_table("evaluations", schema=None) as batch_op:
        for name in ("admitted_at", "requested_by", "attempt"):
            batch_op.drop_column(name)
