import time

import pytest
from sqlalchemy import create_engine, text

from budeval.commons.settings import StartRefused
from budeval.record.database import SQLITE_BUSY_SECONDS, open_database

BAD = [
    ("nonsense canary", "is no database URL such as sqlite:///PATH or postgresql+psycopg://"),
    ("postgresql+psycopg://user:canary@host:canary/db", "is no database URL"),
    ("foo://user:canary@host/db", "no driver for foo is installed; use sqlite or postgresql+psycopg"),
    ("postgresql+asyncpg://user:canary@host/db", "no driver for postgresql+asyncpg is installed"),
    ("postgresql+psycopg://user:canary@127.0.0.1:1/db", "the database cannot be used: connection failed: "),
    ("sqlite:////proc/1/none/record.sqlite", "/proc/1/none cannot be used: No such file or directory"),
    ("sqlite:////proc", "the database cannot be used: unable to open database file"),
]


@pytest.mark.parametrize(("url", "words"), BAD)
def test_a_database_that_cannot_be_used_ends_the_start_without_a_password(url, words):
    with pytest.raises(StartRefused) as refused:
        open_database(url)
    told = str(refused.value)
    assert told.startswith(f"BUDEVAL_DATABASE_URL: {words}")
    assert "canary" not in told
    assert "\n" not in told


def test_a_file_that_is_no_database_ends_the_start_at_once(tmp_path):
    (tmp_path / "file").write_text("something else" * 100)
    began = time.monotonic()
    with pytest.raises(
        StartRefused, match=r"^BUDEVAL_DATABASE_URL: the database cannot be used: file is not a database"
    ):
        open_database(f"sqlite:///{tmp_path}/file")
    assert time.monotonic() - began < SQLITE_BUSY_SECONDS


def test_a_record_of_a_newer_version_ends_the_start(tmp_path):
    url = f"sqlite:///{tmp_path}/record.sqlite"
    open_database(url).dispose()
    newer = create_engine(url)
    with newer.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    newer.dispose()
    with pytest.raises(StartRefused, match=r"^BUDEVAL_DATABASE_URL: the database was made by another version .*9999"):
        open_database(url)
