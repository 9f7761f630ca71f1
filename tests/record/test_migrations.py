import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from budeval.record.database import migrate, open_database
from budeval.record.queries import Criteria, Sort
from budeval.record.tables import Base

TABLES = {"evaluations", "runs", "scores", "events", "timeline", "alembic_version"}
OPEN = "import sys; from budeval.record.database import open_database; open_database(sys.argv[1]).dispose()"


def test_an_empty_database_gets_every_table(database):
    assert set(inspect(database).get_table_names()) == TABLES


def test_the_migrated_schema_is_that_of_the_models(database):
    with database.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, Base.metadata) == []


def test_migrating_again_changes_nothing(database, record, evaluation):
    before = record.view(evaluation.eval_id)
    migrate(database)
    assert record.view(evaluation.eval_id) == before


def test_migrations_go_back_to_an_empty_database(database):
    config = Config()
    config.set_main_option("script_location", "budeval/record/migrations")
    with database.execution_options(record_writes=True).begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert set(inspect(database).get_table_names()) == {"alembic_version"}


def test_services_that_start_at_once_share_one_migration(database_url):
    def start():
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", OPEN, database_url],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    with ThreadPoolExecutor(2) as pool:
        ended = list(pool.map(lambda _: start(), range(2)))
    assert [(done.returncode, done.stderr) for done in ended] == [(0, "")] * 2
    database = open_database(database_url)
    assert set(inspect(database).get_table_names()) == TABLES
    database.dispose()


def test_the_directory_and_the_file_of_a_sqlite_record_are_for_its_owner_alone(tmp_path):
    open_database(f"sqlite:///{tmp_path}/new/record.sqlite").dispose()
    directory = tmp_path / "new"
    assert directory.stat().st_mode & 0o077 == 0
    assert [path.name for path in directory.iterdir() if path.stat().st_mode & 0o077] == []


def test_what_is_committed_outlives_a_loss_of_power(database):
    with database.connect() as connection:
        if database.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 2
        else:
            # What the server says counts, and by default it says "on".
            asked = "SELECT source FROM pg_settings WHERE name = 'synchronous_commit'"
            assert connection.exec_driver_sql(asked).scalar_one() not in {"client", "session"}


def test_evaluations_of_the_first_version_are_found_afterwards(database, record, evaluation):
    config = Config()
    config.set_main_option("script_location", "budeval/record/migrations")
    with database.execution_options(record_writes=True).begin() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    migrate(database)
    summary = record.queries.find(Criteria(model="small-model", source="budapp"), Sort.NEWEST, None, 10)[0]
    assert (summary.eval_id, summary.engine, summary.experiment_id) == (evaluation.eval_id, "opencompass", None)
    assert record.timeline.head(evaluation.eval_id).newest == 0
    record.request_cancel(evaluation.eval_id, by="somebody")
    assert [entry.kind for entry in record.timeline.entries(evaluation.eval_id, 0, 10)] == ["cancel"]
