"""Keeping the key from code that a model wrote, which some data sets run to score it, as the same user."""

import ctypes

_PR_SET_DUMPABLE = 4


def hide_process() -> None:
    """Let no other process of this user read this one's environment and memory; children that are forked inherit it."""
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
