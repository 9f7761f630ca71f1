"""The command line ``budeval``."""

from budeval.cli.app import main

__all__ = ["main"]
