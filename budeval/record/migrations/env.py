"""Alembic's entry point; ``budeval.record.database.migrate`` hands over the connection."""

from alembic import context

from budeval.record.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    render_as_batch=True,
    transactional_ddl=True,
)
context.run_migrations()
