"""Files the stack writes: whole or not at all, and readable by their owner only where they hold a secret."""

import hashlib
import os
from pathlib import Path

SECRET_MODE = 0o600


def write(path: Path, content: str | bytes, mode: int = 0o644) -> bool:
    """Write a file by rename; return whether its content is new."""
    data = content.encode() if isinstance(content, str) else content
    if path.exists() and path.read_bytes() == data and path.stat().st_mode & 0o777 == mode:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as output:
        output.write(data)
    draft.chmod(mode)
    draft.rename(path)
    return True


def read(path: Path) -> str:
    """The text of a file, or "" where there is none."""
    return path.read_text() if path.exists() else ""


def digest(*parts: str | bytes | Path) -> str:
    """SHA-256 (hex) over texts and the contents of files, with their lengths, so that no two lists collide."""
    total = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode() if isinstance(part, str) else part
        total.update(f"{len(data)}:".encode())
        total.update(data)
    return total.hexdigest()
