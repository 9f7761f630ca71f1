"""The errors of the local stack: each says what failed and what to do about it."""


class StackError(Exception):
    """Something the stack needs is missing or failed; the message is meant for the person at the terminal."""


class NotReady(Exception):
    """A part does not answer yet; the message says what was seen instead."""
