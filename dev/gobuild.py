"""Building the pinned Go programs, once for each version of their go.mod, into the shared cache."""

import json
import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from dev import files
from dev.console import Line, line
from dev.errors import StackError
from dev.locks import locked
from dev.settings import Settings
from dev.shell import run, run_logged

# Five minutes on two idle cores with a cold cache; slow networks and busy machines get the rest.
BUILD_TIMEOUT_SECONDS = 3600.0


@dataclass(frozen=True)
class Correction:
    """A place in the source of a required module that is built in other words than its authors'."""

    module: str
    file: str
    """Below the module's folder."""
    theirs: str
    ours: str


@dataclass(frozen=True)
class GoModule:
    """A Go tool module below dev/go and the programs built from it."""

    name: str
    packages: tuple[str, ...]
    linker_flags: str
    tags: str = ""
    corrections: tuple[Correction, ...] = ()

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
    # Placement and scheduler take --healthz-listen-address, and open the port on all interfaces all the same.
    corrections=(
        Correction(
            "github.com/dapr/dapr",
            "pkg/healthz/server/server.go",
            theirs='net.Listen("tcp", fmt.Sprintf(":%d", s.port))',
            ours='net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", s.port))',
        ),
    ),
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
    source = _source(settings, module)
    flags = (module.linker_flags, module.tags, *(repr(correction) for correction in module.corrections))
    key = files.digest(source / "go.mod", source / "go.sum", *module.packages, *flags, platform.machine())
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


def _source(settings: Settings, module: GoModule) -> Path:
    return settings.root / "dev" / "go" / module.name


def _build(settings: Settings, module: GoModule, target: Path, progress: Line) -> None:
    draft = target.with_name(f"{target.name}.partial")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    with TemporaryDirectory() as folder:
        modfile = (
            _corrected(settings, module, Path(folder)) if module.corrections else _source(settings, module) / "go.mod"
        )
        for number, (package, program) in enumerate(zip(module.packages, module.programs, strict=True), 1):
            progress.note = f"{program} ({number} of {len(module.programs)})"
            progress.log = settings.logs / f"build-{program}.log"
            flags = ["-ldflags", module.linker_flags, "-tags", module.tags, "-modfile", str(modfile)]
            run_logged(
                ["go", "build", "-o", draft / program, *flags, package],
                progress.log,
                timeout=BUILD_TIMEOUT_SECONDS,
                cwd=_source(settings, module),
                env=_environment(),
            )
    draft.rename(target)
    progress.note = ""


def _corrected(settings: Settings, module: GoModule, folder: Path) -> Path:
    """Correct copies of the required modules, and return a go.mod that leads to them instead."""
    source = _source(settings, module)
    replaced: dict[str, Path] = {}
    for correction in module.corrections:
        if correction.module not in replaced:
            copy = replaced[correction.module] = folder / f"module-{len(replaced)}"
            # Without the modes: what Go downloads is read-only.
            original = _module_folder(settings, module, correction.module)
            shutil.copytree(original, copy, copy_function=shutil.copyfile)
        file = replaced[correction.module] / correction.file
        text = file.read_text()
        if text.count(correction.theirs) != 1:
            raise StackError(f"{correction.file} of {correction.module} has not {correction.theirs!r} any more")
        file.write_text(text.replace(correction.theirs, correction.ours))
    lines = [f"replace {name} => {copy}" for name, copy in replaced.items()]
    (folder / "go.mod").write_text("\n".join([(source / "go.mod").read_text(), *lines, ""]))
    shutil.copyfile(source / "go.sum", folder / "go.sum")
    return folder / "go.mod"


def _module_folder(settings: Settings, module: GoModule, required: str) -> Path:
    """Where Go keeps the source of a module, downloaded where it is not there."""
    command = ["go", "mod", "download", "-json", required]
    said = run(command, timeout=BUILD_TIMEOUT_SECONDS, cwd=_source(settings, module), env=_environment())
    return Path(json.loads(said)["Dir"])


def _environment() -> dict[str, str]:
    # readonly: nothing but what go.mod and go.sum pin is ever used.
    return {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=readonly -buildvcs=false"}
