"""Building images into archives that `ctr images import` takes."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from dev.console import line
from dev.errors import StackError
from dev.images.recipes import (
    BASE_DOCKERFILE,
    BUSYBOX,
    DEBIAN_SUITE,
    PAUSE_DOCKERFILE,
    PYTHON_BASE,
    PYTHON_BASE_PACKAGES,
    Image,
    base_hash,
    find_image,
    image_hash,
    source_files,
)
from dev.locks import locked
from dev.packages import IMAGE_PACKAGES, ensure_packages
from dev.settings import Settings
from dev.shell import run, run_logged

BUILD_TIMEOUT_SECONDS = 1800.0
# The host's CA bundle, seen by RUN steps only and not stored in the image: pip needs it behind a proxy of one's own.
CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")
# In memory there are no fsyncs: unpacking a base is 2 to 4 times faster.
FAST_TEMPORARY = Path("/dev/shm")  # noqa: S108 - only a faster place for a private temporary folder
ARCHIVES_KEPT = 3
DOCUMENTATION = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*")


def ensure_image(settings: Settings, name: str) -> Path:
    """Return the archive of an image, building it when it is not in the cache.

    Args:
        name: `engine`, `pause` or `service`.

    Raises:
        StackError: there is no such image, or a step of the build failed; the message has the command and its log.
    """
    image = find_image(name)
    if not image.context:
        ensure_packages(settings, IMAGE_PACKAGES)
    archive = _archive(settings, image)
    if archive.exists():
        archive.touch()
        return archive
    ensure_packages(settings, IMAGE_PACKAGES)
    with _build_lock(settings):
        if not archive.exists():
            if image.context:
                _ensure_base(settings)
            _build(settings, image, archive)
    return archive


def ensure_base(settings: Settings) -> str:
    """Build the Python base image when it is missing and return its name in the image store."""
    ensure_packages(settings, IMAGE_PACKAGES)
    with _build_lock(settings):
        return _ensure_base(settings)


def export_for_docker(settings: Settings, source: str, reference: str, archive: Path) -> None:
    """Write an image as `docker load` takes it.

    Args:
        source: a name in the image store, or an archive of `ensure_image` as `oci-archive:PATH`.
        reference: the name it is to be loaded under.
    """
    with _build_lock(settings):
        # By way of a container: docker-archive knows no zstd, and a plain copy would keep it.
        command = [*_buildah_command(settings), "from", "--pull-never", source]
        container = run(command, timeout=BUILD_TIMEOUT_SECONDS, env=_environment()).strip()
        try:
            target = f"docker-archive:{archive}:{reference}"
            _buildah(settings, "docker-archive", "commit", "--format", "docker", container, target)
        finally:
            _buildah(settings, "docker-archive-end", "rm", container)


def _archive(settings: Settings, image: Image) -> Path:
    return _home(settings) / f"{image.name}-{image_hash(image, settings.root)}.tar"


def _home(settings: Settings) -> Path:
    return settings.cache / "images"


def _build_lock(settings: Settings) -> AbstractContextManager[None]:
    """One build at a time for all checkouts: they share the image store."""
    return locked(_home(settings) / "lock", "build of an image")


@contextmanager
def _temporary() -> Iterator[Path]:
    parent = FAST_TEMPORARY if os.access(FAST_TEMPORARY, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="budeval-image-", dir=parent) as folder:
        yield Path(folder)


def _ensure_base(settings: Settings) -> str:
    reference = f"{PYTHON_BASE}-{base_hash()}"
    if _in_store(settings, reference):
        return reference
    with line("build image python-base") as progress, _temporary() as folder:
        command = [
            "mmdebstrap",
            "--variant=minbase",
            f"--include={','.join(PYTHON_BASE_PACKAGES)}",
            # Without this hook the merged-usr package pulls in all of perl.
            "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in DOCUMENTATION),
            '--customize-hook=rm -f "$1/etc/resolv.conf" "$1/etc/hostname"',
            DEBIAN_SUITE,
            str(folder / "rootfs.tar"),
        ]
        progress.log = _log(settings, "mmdebstrap")
        run_logged(command, progress.log, timeout=BUILD_TIMEOUT_SECONDS, env={**os.environ, "TMPDIR": str(folder)})
        (folder / "Dockerfile").write_text(BASE_DOCKERFILE)
        _buildah(settings, "python-base", "build", "-t", reference, str(folder))
    return reference


def _in_store(settings: Settings, reference: str) -> bool:
    command = [*_buildah_command(settings), "images", "--noheading", "--format", "{{.Name}}:{{.Tag}}"]
    return reference in run(command, timeout=60, env=_environment()).split()


def _build(settings: Settings, image: Image, archive: Path) -> None:
    with line(f"build image {image.name}") as progress, _temporary() as folder:
        options = _stage_pause(folder) if not image.context else _stage(settings, image, folder)
        progress.log = _log(settings, image.name)
        _buildah(settings, image.name, "build", *options, "-t", image.reference, str(folder))
        draft = archive.with_suffix(".draft")
        draft.unlink(missing_ok=True)
        # zstd: a quarter of the size, and no slower to import.
        packing = ("--compression-format", "zstd", "--compression-level", "3")
        target = f"oci-archive:{draft}:{image.reference}"
        _buildah(settings, f"{image.name}-archive", "push", *packing, image.reference, target)
        draft.rename(archive)
        _forget_old(archive.parent, image)
        progress.note = f"{archive.stat().st_size / 1e6:.0f} MB"


def _forget_old(home: Path, image: Image) -> None:
    """Keep the archives used last; another checkout may be at another version."""
    archives = sorted(home.glob(f"{image.name}-*.tar"), key=lambda path: path.stat().st_mtime)
    for archive in archives[:-ARCHIVES_KEPT]:
        archive.unlink(missing_ok=True)


def _stage(settings: Settings, image: Image, folder: Path) -> list[str]:
    """Copy what the build may see to `folder` and return the build's options."""
    context = settings.root / image.context
    for relative in source_files(image, context):
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(context / relative, folder / relative)
    bundle = ["-v", f"{CA_BUNDLE}:{CA_BUNDLE}:ro"] if CA_BUNDLE.exists() else []
    return [*bundle, "--build-arg", f"BASE_IMAGE={PYTHON_BASE}-{base_hash()}"]


def _stage_pause(folder: Path) -> list[str]:
    if not BUSYBOX.exists():
        raise StackError(f"There is no {BUSYBOX}; install the package busybox-static")
    shutil.copy(BUSYBOX, folder / "busybox")
    (folder / "Dockerfile").write_text(PAUSE_DOCKERFILE)
    return []


def _buildah(settings: Settings, name: str, *arguments: str) -> None:
    command = [*_buildah_command(settings), *arguments]
    run_logged(command, _log(settings, name), timeout=BUILD_TIMEOUT_SECONDS, env=_environment())


def _buildah_command(settings: Settings) -> list[str]:
    return ["buildah", "--root", str(_home(settings) / "store"), "--runroot", str(_home(settings) / "run")]


def _environment() -> Mapping[str, str]:
    """buildah without network namespaces, cgroups or CNI, keeping the layers for the next build."""
    return {**os.environ, "BUILDAH_ISOLATION": "chroot", "BUILDAH_LAYERS": "true", "STORAGE_DRIVER": "overlay"}


def _log(settings: Settings, name: str) -> Path:
    return settings.logs / f"image-{name}.log"
