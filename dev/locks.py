"""One at a time: whoever comes second waits, and is told so."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dev.console import line


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold the lock file `path` for as long as the block; the kernel lets go of it when this process ends.

    Args:
        what: what somebody else may be at, shown while this one waits.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with line(f"wait for another {what}"):
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
