"""Getting images into the node's containerd, once for each content of their archive."""

from pathlib import Path

from dev import files
from dev.settings import Settings
from dev.shell import run

# Unpacking dominates: 13 to 40 s for the engine image on two cores.
IMPORT_TIMEOUT_SECONDS = 600.0


def is_imported(settings: Settings, image: str, archive: Path) -> bool:
    """Whether containerd holds this image from an archive of this content.

    The content is read only where the file itself is another one than the last time.
    """
    stamp = _stamp(settings, image)
    known = files.read(stamp).split()
    if len(known) != 2:
        return False
    if known[0] != _signature(archive) and known[1] != files.digest(archive):
        return False
    return image in run([*_ctr(settings), "images", "list", "-q", f"name=={image}"], timeout=30).split()


def import_image(settings: Settings, image: str, archive: Path) -> None:
    """Import and unpack an OCI archive; the image replaces one of the same name."""
    run([*_ctr(settings), "images", "import", str(archive)], timeout=IMPORT_TIMEOUT_SECONDS)
    files.write(_stamp(settings, image), f"{_signature(archive)} {files.digest(archive)}")


def _ctr(settings: Settings) -> list[str]:
    return ["ctr", "--address", str(settings.containerd_socket), "--namespace", "k8s.io"]


def _stamp(settings: Settings, image: str) -> Path:
    # Beside the content it speaks of, so that both go together.
    return settings.state / "containerd" / "imported" / image.replace("/", "_")


def _signature(archive: Path) -> str:
    status = archive.stat()
    return f"{status.st_ino}:{status.st_size}:{status.st_mtime_ns}"
