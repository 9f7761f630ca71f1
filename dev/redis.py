"""Redis for pub/sub: durable on disk, reachable from this machine only."""

from dev.settings import Settings
from dev.supervision import Program


def program(settings: Settings) -> Program:
    """redis-server with everything on its command line."""
    folder = settings.state / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "port": settings.ports.redis,
        "bind": "127.0.0.1",
        "dir": folder,
        # A notification that was accepted survives the death of Redis.
        "appendonly": "yes",
        "save": "",
        "daemonize": "no",
        # A title would be written over the environment, by which the stack knows its own processes.
        "set-proc-title": "no",
    }
    arguments = [argument for name, value in options.items() for argument in (f"--{name}", str(value))]
    return Program("redis", ["redis-server", *arguments])
