"""Reading files in directories to which foreign code had access."""

import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO


class NotARegularFile(OSError):
    """The name belongs to a directory, a pipe, a device."""


@contextmanager
def file_below(root: Path, *names: str) -> Iterator[BinaryIO]:
    """Opens a regular file step by step from ``root`` without following a link.

    The directories belong to an engine, which ran foreign code: a link could lead anywhere, and a pipe never end.

    Raises:
        OSError: as ``open`` does; a link is one that cannot be opened.
        NotARegularFile: there is something else.
    """
    with ExitStack() as opened:
        place = os.open(root, os.O_RDONLY)
        opened.callback(os.close, place)
        for name in names:
            place = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=place)
            opened.callback(os.close, place)
        if not stat.S_ISREG(os.fstat(place).st_mode):
            raise NotARegularFile(f"{names[-1]} is no regular file")
        yield opened.enter_context(open(place, "rb", closefd=False))


def last_bytes(file: BinaryIO, count: int) -> bytes:
    """The end of a file."""
    file.seek(max(0, os.fstat(file.fileno()).st_size - count))
    return file.read(count)
