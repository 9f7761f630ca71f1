"""Engines and migrations of the record's database: SQLite by default, PostgreSQL by URL."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import DeclarativeBase, Session
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from budeval.commons.settings import setting

_MIGRATIONS = Path(__file__).parent / "migrations"
SQLITE_BUSY_SECONDS = 30
CONNECT_SECONDS = "10"
"""A server that does not answer at all is not waited for as long as TCP does; the URL may say otherwise."""


def open_database(url: str) -> Engine:
    """Connects and migrates to the newest schema. A SQLite file is made for its owner alone.

    Raises :class:`StartRefused`, which shows no password, where that cannot be done.
    """
    with setting("BUDEVAL_DATABASE_URL"):
        engine = _engine(_parsed(url))
        try:
            migrate(engine)
        except (DBAPIError, sqlite3.Error) as error:
            said = error.orig if isinstance(error, DBAPIError) else error
            raise ValueError(f"the database cannot be used: {' '.join(str(said).split())}") from error
        except CommandError as error:
            raise ValueError(f"the database was made by another version of budeval: {error}") from error
    return engine


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError):
        # The parser's message may quote a part of the password.
        form = "sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
        raise ValueError(f"is no database URL such as {form}") from None


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        if url.database and url.database != ":memory:":
            _make_private_file(Path(url.database))
        engine = create_engine(url, connect_args={"timeout": SQLITE_BUSY_SECONDS})
        _configure_sqlite(engine)
        return engine
    try:
        return create_engine(
            url.update_query_dict({"connect_timeout": CONNECT_SECONDS, **url.query}), pool_pre_ping=True
        )
    except (NoSuchModuleError, ImportError) as error:
        raise ValueError(f"no driver for {url.drivername} is installed; use sqlite or postgresql+psycopg") from error


def insert(session: Session, table: type[DeclarativeBase]) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that can be told what to do about a conflict, in the words of the session's database."""
    if session.get_bind().dialect.name == "sqlite":
        return sqlite.insert(table)
    return postgresql.insert(table)


def erase_traces(database: Engine) -> None:
    """Makes sure that what was deleted is not in SQLite's files any more, where its log keeps old pages.

    Where somebody reads or writes for long right now, the log is emptied by the next call.
    """
    if database.dialect.name != "sqlite":
        return
    with closing(database.raw_connection()) as connection:
        connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")


def migrate(engine: Engine) -> None:
    """Brings the schema up to date; harmless when it is, and safe when two services start at once."""
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS))
    with engine.execution_options(record_writes=True).connect() as connection:
        _lock(connection)
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        connection.commit()


def _make_private_file(path: Path) -> None:
    # SQLite gives its log the mode of the file itself.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)


def _lock(connection: Connection) -> None:
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(823476)")


@retry(
    retry=retry_if_exception(lambda error: getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY),
    wait=wait_random(0.01, 0.1),
    stop=stop_after_delay(SQLITE_BUSY_SECONDS),
    reraise=True,
)
def _use_write_ahead_log(connection: sqlite3.Connection) -> None:
    # SQLite does not wait for another process that switches at the same moment; it says "locked" at once.
    connection.execute("PRAGMA journal_mode=WAL")


def _configure_sqlite(engine: Engine) -> None:
    # The driver's own transactions begin too late (at the first write), so that two writers that read first can
    # deadlock. We begin ourselves, and a writer takes the lock at once.
    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        _use_write_ahead_log(connection)
        # FULL: what is committed outlives a loss of power, an accepted request and the claim of a notification alike.
        for pragma in ("synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get("record_writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
