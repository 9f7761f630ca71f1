"""What differs from engine to engine, behind one protocol."""

from budeval.engines.base import DatasetInfo, Engine, UnknownEngine
from budeval.engines.opencompass import OpenCompass

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (OpenCompass(),)}
"""Every engine the service can run, by its name in requests."""


def get_engine(name: str) -> Engine:
    """Raises :class:`UnknownEngine` with the known names."""
    try:
        return ENGINES[name]
    except KeyError:
        raise UnknownEngine(name, sorted(ENGINES)) from None


__all__ = ["ENGINES", "DatasetInfo", "Engine", "UnknownEngine", "get_engine"]
