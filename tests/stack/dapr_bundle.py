"""A bundle for `dapr init --from-dir`, laid out as the CLI wants it, with the programs of the stack's own build."""

import io
import json
import platform
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

from tests.stack.docker_engine import DockerEngine

VERSION = "1.18.2"
IMAGE = f"daprio/dapr:{VERSION}"
IMAGE_FILE = "dapr.tar"
REDIS_IMAGE = "redis:6"
ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())


def write_bundle(folder: Path, programs: Path) -> Path:
    """The bundle without an image, which is enough for `--slim`.

    The dashboard is a stand-in: the CLI insists on one, and nothing here opens it.
    """
    (folder / "dist").mkdir(parents=True)
    (folder / "docker").mkdir()
    details = {
        "daprd": VERSION,
        "dashboard": "0.0.0",
        "cli": "1.16.5",
        "daprBinarySubDir": "dist",
        "dockerImageSubDir": "docker",
        "daprImageName": IMAGE,
        "daprImageFileName": IMAGE_FILE,
    }
    (folder / "details.json").write_text(json.dumps(details))
    for name in ("daprd", "placement", "scheduler"):
        _archive(folder, name, lambda archive, name=name: archive.add(programs / name, name))
    _archive(folder, "dashboard", _add_dashboard)
    return folder


def _archive(folder: Path, name: str, fill: Callable[[tarfile.TarFile], None]) -> None:
    # Not compressed: this is unpacked once.
    with tarfile.open(folder / "dist" / f"{name}_linux_{ARCHITECTURE}.tar.gz", "w:gz", compresslevel=0) as archive:
        fill(archive)


def _add_dashboard(archive: tarfile.TarFile) -> None:
    release = f"release/linux_{ARCHITECTURE}"
    for folder in ("release", release, f"{release}/web"):
        archive.addfile(_folder(folder))
    program = b"#!/bin/sh\n"
    entry = tarfile.TarInfo(f"{release}/dashboard")
    entry.size, entry.mode = len(program), 0o755
    archive.addfile(entry, io.BytesIO(program))


def _folder(name: str, mode: int = 0o755) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, mode
    return entry


def add_image(bundle: Path, programs: Path, engine: DockerEngine) -> None:
    """Dapr's image as it publishes it: static programs in `/`, a plain user, folders that everybody may write to."""
    rootfs = bundle / "docker" / "rootfs.tar"
    with tarfile.open(rootfs, "w") as archive:
        for name, mode in (("tmp", 0o1777), ("var", 0o755), ("var/lock", 0o1777), ("var/run", 0o755)):
            archive.addfile(_folder(name, mode))
        for name in ("placement", "scheduler"):
            archive.add(programs / name, name)
    engine.docker("import", "--change=WORKDIR /", "--change=USER 65532:65532", rootfs, IMAGE)
    engine.docker("save", "--output", bundle / "docker" / IMAGE_FILE, IMAGE)
    # What `dapr init` finds is what it brings.
    engine.docker("image", "rm", IMAGE)
    rootfs.unlink()


def run_redis(engine: DockerEngine) -> None:
    """What `dapr init` runs where it may fetch images, with Debian's Redis under the name of the published image."""
    server = "/usr/bin/redis-server"
    listing = subprocess.run(["ldd", server], capture_output=True, text=True, check=True).stdout
    rootfs = engine.folder / "redis.tar"
    with tarfile.open(rootfs, "w", dereference=True) as archive:
        for path in [server, *re.findall(r"(/\S+) \(0x", listing)]:
            archive.add(path)
    # Redis would refuse callers from beyond its container, as that of the published image does not.
    start = json.dumps([server, "--protected-mode", "no", "--save", ""])
    engine.docker("import", f"--change=CMD {start}", rootfs, REDIS_IMAGE)
    engine.docker("run", "--name=dapr_redis", "--restart=always", "--detach", "--publish=6379:6379", REDIS_IMAGE)
