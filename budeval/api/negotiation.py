"""Which of several media types a client prefers (RFC 9110, 12.5.1)."""

import re
from collections.abc import Sequence

MAXIMUM_RANGES = 50
"""Media ranges of an Accept header that are looked at."""


def preferred(accept: str | None, offered: Sequence[str]) -> str | None:
    """The offered type with the highest quality, the first of equals; none: the client takes none of them."""
    if accept is None or not accept.strip():
        return offered[0]
    ranges = [_range(part) for part in accept.split(",")[:MAXIMUM_RANGES]]
    qualities = {media_type: _quality(media_type, ranges) for media_type in offered}
    best = max(offered, key=lambda media_type: qualities[media_type])
    return best if qualities[best] > 0 else None


_QUALITY = re.compile(r";\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*(?:;|$)", re.IGNORECASE)


def _range(text: str) -> tuple[str, float]:
    media_range = text.partition(";")[0].strip().lower()
    quality = _QUALITY.search(text)
    return media_range, float(quality[1]) if quality else 1.0


def _quality(media_type: str, ranges: Sequence[tuple[str, float]]) -> float:
    """That of the most specific range that fits."""
    given = dict(ranges)
    for media_range in (media_type, f"{media_type.partition('/')[0]}/*", "*/*"):
        if media_range in given:
            return given[media_range]
    return 0.0
