"""A real PostgreSQL server for tests: one for the whole session, in a directory of its own, on loopback alone."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import psycopg

from dev.packages import ensure_packages
from dev.settings import load_settings

PORT = 13543
"""Fixed, so that a server left behind by a killed session is noticed instead of joined by another."""
START_SECONDS = 30
SUPERUSER = "budeval"

_FAST_AND_FORGETFUL = ("fsync=off", "synchronous_commit=off", "full_page_writes=off")


class PostgresqlServer:
    """A running server with one database, which each test finds empty, and more for those that need several at once."""

    def __init__(self, port: int) -> None:
        self.url = f"postgresql+psycopg://{SUPERUSER}@127.0.0.1:{port}/postgres"
        self._numbers = count(1)
        self._dsn = f"host=127.0.0.1 port={port} user={SUPERUSER} dbname=postgres connect_timeout=5"

    def emptied(self) -> str:
        """The database's URL, once nothing is in it. Making a new database would take ten times as long."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute("SET lock_timeout = '10s'")
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
        return self.url

    def another(self) -> str:
        """URL of a new database."""
        name = f"another_{next(self._numbers)}"
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
        return self.url.removesuffix("postgres") + name


@contextmanager
def running_postgresql(directory: Path, port: int = PORT, *, forgetful: bool = True) -> Iterator[PostgresqlServer]:
    """Starts a server with its data under ``directory`` and stops it at the end; ``forgetful``: the fastest way."""
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0, f"another PostgreSQL, or something else, is on port {port}"
    programs = _programs()
    data, log = directory / "data", directory / "postgresql.log"
    directory.mkdir(parents=True, exist_ok=True)
    _hand_over(directory)
    _run([programs / "initdb", "-D", data, "-U", SUPERUSER, "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])
    options = [f"port={port}", "listen_addresses=127.0.0.1", f"unix_socket_directories={directory}"]
    arguments = [part for option in (*options, *(_FAST_AND_FORGETFUL if forgetful else ())) for part in ("-c", option)]
    with log.open("wb") as output:
        # Gone with the tests, should they be killed.
        server = subprocess.Popen(
            ["setpriv", "--pdeathsig", "INT", programs / "postgres", "-D", data, *arguments],
            stdout=output,
            stderr=output,
            **_unprivileged(),
        )
    try:
        _wait_until_it_answers(server, log, port)
        yield PostgresqlServer(port)
    finally:
        # Fast shutdown: SIGTERM would wait for every client to leave.
        server.send_signal(signal.SIGINT)
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait(timeout=10)


def _programs() -> Path:
    found = _installed_programs()
    if found is None:
        ensure_packages(load_settings(), ["postgresql"])
        found = _installed_programs()
    assert found is not None, "postgresql is installed, but there is no initdb under /usr/lib/postgresql"
    return found


def _installed_programs() -> Path | None:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if versions:
        return versions[-1].parent
    on_path = shutil.which("initdb")
    return None if on_path is None else Path(on_path).resolve().parent


def _unprivileged() -> dict[str, int | str]:
    # PostgreSQL refuses to run as root.
    if os.geteuid() != 0:
        return {}
    account = pwd.getpwnam("postgres")
    return {"user": account.pw_uid, "group": account.pw_gid, "cwd": "/"}


def _hand_over(directory: Path) -> None:
    account = _unprivileged()
    if account:
        os.chown(directory, int(account["user"]), int(account["group"]))


def _run(command: list[str | Path]) -> None:
    done = subprocess.run(
        command, check=False, timeout=60, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **_unprivileged()
    )
    assert done.returncode == 0, done.stdout.decode(errors="replace")


def _wait_until_it_answers(server: subprocess.Popen[bytes], log: Path, port: int) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, log.read_text(encoding="utf-8", errors="replace")
        try:
            psycopg.connect(host="127.0.0.1", port=port, user=SUPERUSER, dbname="postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(f"PostgreSQL did not answer within {START_SECONDS} s: {log.read_text(encoding='utf-8')}")
