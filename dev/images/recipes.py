"""What each image is made from: pure values and their hashes."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dev.errors import StackError
from dev.files import digest

DEBIAN_SUITE = "bookworm"
PYTHON_BASE = "localhost/budeval-python-base:bookworm"
# In the role that python:3.11-slim-bookworm has for a Docker user.
PYTHON_BASE_PACKAGES = ("usr-is-merged", "python3-venv", "ca-certificates")
BUSYBOX = Path("/bin/busybox")

BASE_DOCKERFILE = """\
FROM scratch
ADD rootfs.tar /
ENV LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["python3"]
"""
PAUSE_DOCKERFILE = """\
FROM scratch
COPY busybox /busybox
USER 65535:65535
ENTRYPOINT ["/busybox", "sleep", "2147483647"]
"""


@dataclass(frozen=True)
class Image:
    """An image that is exported as an archive."""

    name: str
    reference: str
    """The name it is imported under."""
    context: str
    """The folder of its Dockerfile, below the checkout; "" for the pause image, which is made of the host's busybox."""
    sources: tuple[str, ...] = ()
    """Files and folders of the context that the Dockerfile copies: the build sees these and no others."""


IMAGES = {
    image.name: image
    for image in (
        Image(
            "engine",
            "localhost/budeval-engine-opencompass:0.1.0",
            "engines/opencompass",
            ("Dockerfile", "requirements.lock", "torch_stand_in", "budeval_engine"),
        ),
        Image("pause", "localhost/budeval-pause:0.1.0", ""),
        Image(
            "service",
            "localhost/budeval:0.1.0",
            ".",
            ("Dockerfile", "requirements-service.lock", "budeval"),
        ),
    )
}


def find_image(name: str) -> Image:
    """The image called `name`; raises StackError when there is none."""
    if name not in IMAGES:
        raise StackError(f"There is no image {name!r}; known are {', '.join(sorted(IMAGES))}")
    return IMAGES[name]


def base_hash() -> str:
    """What the base is made from. Its packages are those of the Debian suite on the day it is built."""
    return digest(DEBIAN_SUITE, *PYTHON_BASE_PACKAGES, BASE_DOCKERFILE)[:16]


def image_hash(image: Image, root: Path) -> str:
    """What `image` is made from, the base included.

    Raises:
        StackError: the image's Dockerfile is missing.
    """
    if not image.context:
        return digest(PAUSE_DOCKERFILE, BUSYBOX)[:16]
    context = root / image.context
    parts: list[str | Path] = [base_hash()]
    for relative in source_files(image, context):
        parts += [str(relative), context / relative]
    return digest(*parts)[:16]


def source_files(image: Image, context: Path) -> list[Path]:
    """The files that the build sees, relative to `context`, in a fixed order.

    Raises:
        StackError: there is no Dockerfile.
    """
    if not (context / "Dockerfile").is_file():
        raise StackError(f"There is no {context / 'Dockerfile'} to build the image {image.name} from")
    return [path.relative_to(context) for name in image.sources for path in _files_of(context / name)]


def _files_of(start: Path) -> Iterator[Path]:
    candidates = sorted(start.rglob("*")) if start.is_dir() else [start]
    return (path for path in candidates if path.is_file() and "__pycache__" not in path.parts)
