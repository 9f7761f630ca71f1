"""Words for people."""


def counted(number: int, noun: str) -> str:
    """A number of things, e.g. ``1 Job`` or ``2 Jobs``; for nouns with a regular plural."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
