"""What an image is made from: the hash that names its archive changes with it and with nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from dev.errors import StackError
from dev.images.recipes import IMAGES, Image, find_image, image_hash, source_files

IMAGE = Image("toy", "localhost/toy:1", "toy", ("Dockerfile", "code"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    code = tmp_path / "toy" / "code"
    code.mkdir(parents=True)
    (tmp_path / "toy" / "Dockerfile").write_text("FROM scratch\n")
    (code / "main.py").write_text("print()\n")
    return tmp_path


def test_the_same_sources_are_the_same_image(root: Path) -> None:
    before = image_hash(IMAGE, root)
    (root / "toy" / "README.md").write_text("not copied\n")
    (root / "toy" / "code" / "__pycache__").mkdir()
    (root / "toy" / "code" / "__pycache__" / "main.pyc").touch()
    assert image_hash(IMAGE, root) == before


@pytest.mark.parametrize("path", ["Dockerfile", "code/main.py", "code/new.py"])
def test_a_changed_source_is_another_image(root: Path, path: str) -> None:
    before = image_hash(IMAGE, root)
    (root / "toy" / path).write_text("changed\n")
    assert image_hash(IMAGE, root) != before


def test_the_build_sees_its_sources_and_no_others(root: Path) -> None:
    (root / "toy" / "secret.env").touch()
    assert [str(path) for path in source_files(IMAGE, root / "toy")] == ["Dockerfile", "code/main.py"]
    assert source_files(replace(IMAGE, sources=("Dockerfile", "absent")), root / "toy") == [Path("Dockerfile")]


def test_a_missing_dockerfile_is_told(root: Path) -> None:
    (root / "toy" / "Dockerfile").unlink()
    with pytest.raises(StackError, match="Dockerfile"):
        image_hash(IMAGE, root)


def test_an_unknown_image_is_told_with_the_known_ones() -> None:
    with pytest.raises(StackError, match="engine, pause, service"):
        find_image("nope")


def test_every_image_has_a_name_of_its_own() -> None:
    assert len({image.reference for image in IMAGES.values()}) == len(IMAGES)
