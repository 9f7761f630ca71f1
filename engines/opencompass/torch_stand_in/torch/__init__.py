"""A stand-in for torch, for evaluations of models behind an API.

OpenCompass imports torch everywhere, but a run against an OpenAI-compatible endpoint computes nothing with it: the only
parts that do work are `no_grad` and `utils.data.DataLoader`. This package has those two, says that there is no GPU, and
answers every other name with a placeholder that can be named, subclassed and used as a decorator while modules are
being imported, and that raises `StandInError` when something tries to compute with it.

The image's build argument TORCH puts the real torch in its place.
"""

import contextlib
import importlib.machinery
import sys
import types
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Self

# Below every version that transformers and datasets ask for: both then work as if torch were not installed.
__version__ = "0.0.0"

_SUPPORTED = "This image has no torch: it evaluates models behind an API and computes nothing itself."
_LOWER_CASE_NAMES = frozenset(
    [
        "bfloat16",
        "bool",
        "compile",
        "double",
        "float",
        "float16",
        "float32",
        "float64",
        "half",
        "int",
        "int8",
        "int16",
        "int32",
        "int64",
        "long",
        "uint8",
    ]
)
# Code asks whether these exist to find out about an accelerator, so they must not pretend.
_ACCELERATORS = frozenset({"npu", "musa", "mlu", "xpu", "mps"})


class StandInError(RuntimeError):
    """Something tried to compute with the stand-in."""


class _Placeholder:
    """Any class, function or value of torch, as far as an import needs it."""

    def __init__(self, *_arguments: object, **_options: object) -> None:
        """Accept what any constructor of torch accepts."""

    def __init_subclass__(cls, **_options: object) -> None:
        """Accept what any base class of torch accepts."""

    def __class_getitem__(cls, _item: object) -> type["_Placeholder"]:
        return cls

    def __or__(self, _other: object) -> type[object]:
        return object

    __ror__ = __or__

    def __call__(self, *arguments: object, **options: object) -> object:
        """Pass a function through, as a decorator does; anything else would be a computation."""
        if len(arguments) == 1 and callable(arguments[0]) and not options:
            return arguments[0]
        raise StandInError(_SUPPORTED)


class no_grad(contextlib.ContextDecorator):
    """Do nothing: there are no gradients to switch off."""

    def __init__(self, *_arguments: object) -> None:
        """Accept the mode flag of `inference_mode`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        return None


inference_mode = no_grad


class Tensor:
    """The class that no object here belongs to."""


class Generator(_Placeholder):
    """A random number generator that is never made."""


class device(_Placeholder):
    """Named in annotations only."""


class dtype(_Placeholder):
    """Named in annotations only."""


def is_tensor(_candidate: object) -> bool:
    """Tell that nothing is a tensor."""
    return False


def manual_seed(_seed: int) -> None:
    """Do nothing: nothing here draws random numbers."""


def _placeholder(name: str) -> type[_Placeholder] | _Placeholder:
    """Return a class for a name that looks like one, else a value."""
    return type(name, (_Placeholder,), {}) if name.lstrip("_")[:1].isupper() else _Placeholder()


class _StandInModule(types.ModuleType):
    """A module of torch in which every public name is a placeholder."""

    def __getattr__(self, name: str) -> Any:
        probes = self.__name__.partition(".")[2] in {"cuda", "distributed", "backends", "version"}
        if name.startswith("__") or (probes and not name[:1].isupper()):
            raise AttributeError(name)
        value = _placeholder(name)
        setattr(self, name, value)
        return value


class _StandInFinder:
    """Makes `import torch.anything.at.all` work, accelerators aside."""

    @staticmethod
    def find_spec(
        name: str, _path: Sequence[str] | None = None, _target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith("torch.") or name.rpartition(".")[2] in _ACCELERATORS:
            return None
        return importlib.machinery.ModuleSpec(name, _StandInFinder, is_package=True)  # type: ignore[arg-type]

    @staticmethod
    def create_module(spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = _StandInModule(spec.name)
        module.__path__ = []
        return module

    @staticmethod
    def exec_module(module: types.ModuleType) -> None:
        module.__dict__.update(_ANSWERS.get(module.__name__, {}))


def _no(*_arguments: object) -> bool:
    return False


def _zero(*_arguments: object) -> int:
    return 0


def _one(*_arguments: object) -> int:
    return 1


def _refuse(*_arguments: object, **_options: object) -> NoReturn:
    raise StandInError(_SUPPORTED)


# What code asks of torch at run time, not only at import: is there a GPU, are there other processes?
_ANSWERS: dict[str, dict[str, Callable[..., object] | None]] = {
    "torch.cuda": {
        "is_available": _no,
        "device_count": _zero,
        "manual_seed_all": _zero,
        "empty_cache": _zero,
        "current_device": _refuse,
    },
    "torch.distributed": {
        "is_available": _no,
        "is_initialized": _no,
        "get_rank": _zero,
        "get_world_size": _one,
    },
    "torch.version": {"cuda": None, "hip": None},
}


def __getattr__(name: str) -> Any:
    if name in _ACCELERATORS or not (name.lstrip("_")[:1].isupper() or name in _LOWER_CASE_NAMES):
        raise AttributeError(f"module 'torch' has no attribute {name!r}")
    value = _placeholder(name)
    globals()[name] = value
    return value


# After the files of this package (utils.data), before an ImportError.
sys.meta_path.append(_StandInFinder)  # type: ignore[arg-type]

from torch import backends, cuda, distributed, hub, jit, nn, optim, utils, version  # noqa: E402

__all__ = [
    "Generator",
    "StandInError",
    "Tensor",
    "backends",
    "cuda",
    "device",
    "distributed",
    "dtype",
    "hub",
    "inference_mode",
    "is_tensor",
    "jit",
    "manual_seed",
    "nn",
    "no_grad",
    "optim",
    "utils",
    "version",
]
