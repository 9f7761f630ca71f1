"""The manifest: what can be installed, and how to tell that it is what it should be."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from dev.errors import StackError

MANIFEST = Path(__file__).with_name("manifest.json")


@dataclass(frozen=True)
class DatasetEntry:
    """One data set of the manifest."""

    name: str
    dataset_ids: tuple[str, ...]
    """The names under which an evaluation asks for it."""
    questions: int
    package: str
    """Where it comes from, as `name==version` of a Python package."""
    licence: str
    """Of the data, as an SPDX identifier."""
    source: str
    """What it is and which part of it."""
    files: Mapping[str, str]
    """SHA-256 (hex) by path below the data folder."""


def read_manifest(path: Path = MANIFEST) -> dict[str, DatasetEntry]:
    """Return the entries by name."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return {
        name: DatasetEntry(name=name, dataset_ids=tuple(entry.pop("dataset_ids")), **entry)
        for name, entry in document["datasets"].items()
    }


def choose(names: Iterable[str] | None, entries: Mapping[str, DatasetEntry]) -> list[DatasetEntry]:
    """Return the entries of `names`, which may also be names an evaluation asks by; all of them for None.

    Raises:
        StackError: a name is in no entry.
    """
    if names is None:
        return list(entries.values())
    chosen: dict[str, DatasetEntry] = {}
    for name in names:
        entry = next((entry for entry in entries.values() if name == entry.name or name in entry.dataset_ids), None)
        if entry is None:
            raise StackError(f"The manifest has no data set {name!r}; it has {', '.join(entries)}")
        chosen[entry.name] = entry
    return list(chosen.values())
