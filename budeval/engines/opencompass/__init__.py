"""The engine OpenCompass."""

from budeval.engines.opencompass.engine import OpenCompass

__all__ = ["OpenCompass"]
