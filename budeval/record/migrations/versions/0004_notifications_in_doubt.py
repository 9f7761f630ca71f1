"""notifications of which nobody can know whether the broker has them"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Forward. Of what is there, only the timeline knows what was in doubt."""
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.add_column(sa.Column("in_doubt", sa.Boolean(), nullable=False, server_default=sa.false()))
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.alter_column("in_doubt", server_default=None)


def downgrade() -> None:
    """Back."""
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_column("in_doubt")
