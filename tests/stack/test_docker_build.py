"""Plain `docker build` by a real Docker engine makes the images that the stack makes without one."""

import fcntl
import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.fernet import Fernet

from dev.images import ensure_image
from dev.images.build import CA_BUNDLE, FAST_TEMPORARY, ensure_base, export_for_docker
from dev.settings import Settings, load_settings
from tests.stack.docker_engine import NO_NETWORK, DockerEngine, docker_engine, enclosure
from tests.stack.second_stack import ROOT, eventually

DOCUMENTS = ("README.md", "docs/operating.md", "engines/opencompass/README.md", "Dockerfile",
             "engines/opencompass/Dockerfile")  # fmt: skip
COMMANDS = {
    "service": "docker build -t REGISTRY/budeval:0.1.0 .",
    "engine": "docker build -t REGISTRY/budeval-engine-opencompass:0.1.0 engines/opencompass",
}
ARGUMENT = "BASE_IMAGE=localhost/python-with-authorities:bookworm"
BUILD_SECONDS = 900
"""With nothing in the cache."""
START_SECONDS = 240
"""On a busy machine, with nothing of the image read yet."""
RESTRICTED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--pids-limit=200")
LIST_FILES = """
import hashlib, json, os, stat, sys
found = {}
own = {"/proc", "/sys", "/dev", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/.dockerenv", sys.argv[1]}
for folder, folders, files in os.walk("/"):
    folders[:] = [name for name in folders if os.path.join(folder, name) not in own]
    for path in (os.path.join(folder, name) for name in folders + files):
        if path in own:
            continue
        seen = os.lstat(path)
        row = [stat.filemode(seen.st_mode), seen.st_uid, seen.st_gid]
        if stat.S_ISLNK(seen.st_mode):
            row.append(os.readlink(path))
        elif stat.S_ISREG(seen.st_mode):
            row.append(seen.st_size)
            # Bytecode holds the time at which its source was written.
            if not path.endswith(".pyc"):
                row.append(hashlib.sha256(open(path, "rb").read()).hexdigest())
        found[path] = row
print(json.dumps(found))
"""

pytestmark = pytest.mark.timeout(BUILD_SECONDS + 300)


@pytest.fixture(scope="module")
def settings() -> Settings:
    return load_settings()


@pytest.fixture(scope="module")
def engine(settings: Settings) -> Iterator[DockerEngine]:
    """An engine that keeps its layers for the next session, with the network of this machine, which pip needs."""
    home = settings.cache / "docker"
    home.mkdir(parents=True, exist_ok=True)
    with (home / "lock").open("w") as guard, enclosure(own_network=False) as around:
        fcntl.flock(guard, fcntl.LOCK_EX)
        with docker_engine(settings, around, home / "data", *NO_NETWORK) as running:
            load_base(running, settings)
            yield running
            running.docker("image", "prune", "--force")


def load_base(engine: DockerEngine, settings: Settings) -> None:
    """The stack's own base, in the role of python:3.11-slim-bookworm, with the authorities that this machine trusts."""
    base = ensure_base(settings)
    if not has_image(engine, base):
        load(engine, settings, base, base)
    folder = engine.folder / "base"
    folder.mkdir()
    (folder / "authorities.crt").write_bytes(CA_BUNDLE.read_bytes())
    (folder / "Dockerfile").write_text(f"FROM {base}\nCOPY authorities.crt {CA_BUNDLE}\n")
    engine.docker("build", "-t", ARGUMENT.partition("=")[2], folder)


def load(engine: DockerEngine, settings: Settings, source: str, reference: str) -> None:
    archive = FAST_TEMPORARY / f"{engine.folder.name}.tar"
    try:
        export_for_docker(settings, source, reference, archive)
        engine.docker("load", "--input", archive, timeout=300)
    finally:
        archive.unlink(missing_ok=True)


def has_image(engine: DockerEngine, reference: str) -> bool:
    return engine.run("image", "inspect", reference).returncode == 0


def documented_builds() -> list[str]:
    """Every `docker build` command of the documentation, without what follows it on its line."""
    texts = [(ROOT / name).read_text(encoding="utf-8") for name in DOCUMENTS]
    return sorted({found.strip() for text in texts for found in re.findall(r"docker build -t [^`&\n]+", text)})


def build(engine: DockerEngine, command: str) -> str:
    """Run a documented command, with what only this machine needs; answers the name it gave the image."""
    words = shlex.split(command.replace("REGISTRY", "localhost"))[1:]
    options = ["--network=host", "--build-arg", ARGUMENT]
    engine.docker(words[0], *options, *words[1:-1], ROOT / words[-1], timeout=BUILD_SECONDS, DOCKER_BUILDKIT="1")
    return words[words.index("-t") + 1]


def configuration(engine: DockerEngine, reference: str) -> dict[str, Any]:
    """What an image says about the process that it is for."""
    found = json.loads(engine.docker("image", "inspect", reference))[0]["Config"]
    kept = ("User", "Entrypoint", "Cmd", "WorkingDir", "ExposedPorts", "Volumes")
    return {**{name: found.get(name) or None for name in kept}, "Env": sorted(found["Env"])}


def files(engine: DockerEngine, reference: str) -> dict[str, list[Any]]:
    """Every file of an image: kind and mode, owner, group, size and digest."""
    command = ["run", "--rm", "--interactive", "--user=0", "--entrypoint=python3", reference, "-", str(CA_BUNDLE)]
    found: dict[str, list[Any]] = json.loads(engine.docker(*command, stdin=LIST_FILES))
    return found


def test_every_documented_command_builds(engine: DockerEngine) -> None:
    assert set(COMMANDS.values()) <= set(documented_builds())
    for command in documented_builds():
        build(engine, command)


@pytest.mark.parametrize("name", COMMANDS)
def test_it_is_the_image_that_the_stack_builds_without_docker(
    engine: DockerEngine, name: str, settings: Settings
) -> None:
    reference = build(engine, COMMANDS[name])
    archive = ensure_image(settings, name)
    other = f"localhost/built-without-docker:{archive.stem}"
    if not has_image(engine, other):
        load(engine, settings, f"oci-archive:{archive}", other)

    assert configuration(engine, reference) == configuration(engine, other)
    ours, theirs = files(engine, reference), files(engine, other)
    assert {path: (row, theirs.get(path)) for path, row in ours.items() if theirs.get(path) != row} == {}
    assert sorted(theirs.keys() - ours.keys()) == []


def test_the_service_lives_without_root_a_writable_root_or_capabilities(engine: DockerEngine) -> None:
    reference, run = build(engine, COMMANDS["service"]), engine.docker
    writable = [f"--tmpfs={path}:uid=65532,gid=65532,mode=0700" for path in ("/var/lib/budeval", "/tmp")]
    variables = {"BUDEVAL_HOST": "127.0.0.1", "BUDEVAL_ACCESS": "off",
                 "BUDEVAL_SEALING_KEYS": Fernet.generate_key().decode()}  # fmt: skip
    named = [f"--env={name}={value}" for name, value in variables.items()]
    container = run("run", "--detach", *RESTRICTED, *writable, *named, reference)
    ask = "import urllib.request as web; print(web.urlopen('http://127.0.0.1:8099/livez', timeout=2).read().decode())"

    def python(program: str) -> str:
        return engine.run("exec", container, "python", "-c", program).stdout.strip()

    try:
        eventually("the service is alive", lambda: python(ask) == '{"status":"ok"}', START_SECONDS)
        assert python("import os; print(os.getuid(), os.getgid(), os.getgroups())") == "65532 65532 [65532]"
        assert python(
            "print(*[row.split()[1] for row in open('/proc/self/status') if row.startswith('Cap')])"
        ) == " ".join(["0" * 16] * 5)
        assert "Read-only file system" in engine.run("exec", container, "touch", "/opt/x").stderr
        run("stop", "--time=10", container)
        assert run("inspect", "--format={{.State.ExitCode}}", container) == "0"
    finally:
        run("rm", "--force", container)


def test_the_engine_says_why_it_refuses_and_that_a_retry_is_useless(engine: DockerEngine) -> None:
    reference = build(engine, COMMANDS["engine"])

    done = engine.run("run", "--rm", *RESTRICTED, "--tmpfs=/tmp", "--tmpfs=/workspace:uid=65532", reference)

    assert done.returncode == 10, done.stdout + done.stderr
    assert "InvalidConfiguration" in done.stdout + done.stderr
