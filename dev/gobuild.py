"""Building the pinned Go programs, once for each version of their go.mod, into the shared cache."""

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from dev import files
from dev.console import Line, line
from dev.errors import StackError
from dev.locks import locked
from dev.settings import Settings
from dev.shell import run_logged

# Five minutes on two idle cores with a cold cache; slow networks and busy machines get the rest.
BUILD_TIMEOUT_SECONDS = 3600.0


@dataclass(frozen=True)
class GoModule:
    """A Go tool module below dev/go and the programs built from it."""

    name: str
    packages: tuple[str, ...]
    linker_flags: str
    tags: str = ""

    @property
    def programs(self) -> tuple[str, ...]:
        """File names of the programs, as `go build` derives them."""
        return tuple(self._program(package) for package in self.packages)

    @staticmethod
    def _program(package: str) -> str:
        name = package.rsplit("/", 1)[-1]
        return "dapr" if name == "cli" else name


# Without the tag daprd has no components and ends at its start.
DAPR = GoModule(
    name="dapr",
    packages=tuple(f"github.com/dapr/dapr/cmd/{program}" for program in ("daprd", "placement", "scheduler")),
    linker_flags="-s -w -X github.com/dapr/dapr/pkg/buildinfo.version=1.18.2",
    tags="stablecomponents",
)
DAPR_CLI = GoModule(name="dapr-cli", packages=("github.com/dapr/cli",), linker_flags="-s -w -X main.version=1.16.5")
_VERSION = "k8s.io/component-base/version"
KUBERNETES = GoModule(
    name="kubernetes",
    packages=tuple(
        f"k8s.io/kubernetes/cmd/{program}"
        for program in ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kubectl")
    ),
    linker_flags=f"-s -w -X {_VERSION}.gitVersion=v1.34.4 -X {_VERSION}.gitMajor=1 -X {_VERSION}.gitMinor=34",
)


def binary_directory(settings: Settings, module: GoModule) -> Path:
    """Where the programs of this exact go.mod, go.sum and these flags are kept."""
    source = settings.root / "dev" / "go" / module.name
    key = files.digest(
        source / "go.mod", source / "go.sum", *module.packages, module.linker_flags, module.tags, platform.machine()
    )
    return settings.cache / f"bin-{module.name}-{key[:16]}"


def ensure_programs(settings: Settings, module: GoModule) -> Path:
    """Build the module's programs unless the cache has them; return their directory.

    Raises:
        StackError: there is no Go, or the build failed (with the command and the end of its log).
    """
    target = binary_directory(settings, module)
    if target.is_dir():
        return target
    if shutil.which("go") is None:
        raise StackError(
            "Go is not installed: the stack builds Dapr and Kubernetes from their pinned Go modules. "
            "Install Go 1.26.6 or later and put it on PATH."
        )
    with locked(target.with_name(f"{target.name}.lock"), f"build of {module.name}"):
        if not target.is_dir():
            with line(f"build {module.name}") as current:
                _build(settings, module, target, current)
    return target


def _build(settings: Settings, module: GoModule, target: Path, progress: Line) -> None:
    draft = target.with_name(f"{target.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for number, (package, program) in enumerate(zip(module.packages, module.programs, strict=True), 1):
        progress.note = f"{program} ({number} of {len(module.programs)})"
        progress.log = settings.logs / f"build-{program}.log"
        command: list[str | Path] = [
            "go",
            "build",
            "-o",
            draft / program,
            "-ldflags",
            module.linker_flags,
            "-tags",
            module.tags,
            package,
        ]
        run_logged(
            command,
            progress.log,
            timeout=BUILD_TIMEOUT_SECONDS,
            cwd=settings.root / "dev" / "go" / module.name,
            env=_environment(),
        )
    draft.rename(target)
    progress.note = ""


def _environment() -> dict[str, str]:
    # readonly: nothing but what go.mod and go.sum pin is ever used.
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
