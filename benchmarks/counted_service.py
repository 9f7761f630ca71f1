"""The service with a cluster of files (``tests.workflow.scripted_service``), and a count of its database statements.

Usage: ``python -m benchmarks.counted_service DIRECTORY``; the count is 8 bytes in ``DIRECTORY/statements``.
"""

import mmap
import struct
import sys
from itertools import count
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

from tests.workflow import scripted_service

NUMBER = struct.Struct("=Q")


def statements(directory: Path) -> int:
    """How many the service has sent so far."""
    return int(NUMBER.unpack((directory / "statements").read_bytes())[0])


def count_statements(directory: Path) -> None:
    """Counts from now on, also across threads."""
    path = directory / "statements"
    path.write_bytes(NUMBER.pack(0))
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), NUMBER.size)
    numbers = count(1)

    def note(*_arguments: Any) -> None:
        NUMBER.pack_into(memory, 0, next(numbers))

    event.listen(Engine, "before_cursor_execute", note)


if __name__ == "__main__":
    count_statements(Path(sys.argv[1]))
    scripted_service.main()
