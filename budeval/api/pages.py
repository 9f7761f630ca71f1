"""Lists in pages. A cursor is the key of the last item, so that pages neither repeat nor miss what was there."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

Item = TypeVar("Item")
Key = TypeVar("Key")

DEFAULT_LIMIT = 50
MAXIMUM_LIMIT = 200
MAXIMUM_CURSOR_LENGTH = 6000
"""The longest key is a model's name of 256 characters, each up to 12 in JSON and a third more in base64."""


Cursor = Annotated[str, Field(max_length=MAXIMUM_CURSOR_LENGTH)]
"""``next_cursor`` of the page before."""


class Page(BaseModel, Generic[Item]):
    """A part of a list."""

    items: list[Item]
    next_cursor: str | None
    """What to give as ``cursor`` to get the next page; null: this is the last one."""


class PageQuery(BaseModel):
    """Which part of a list is asked for. Unknown parameters are refused: a filter with a typo would find everything."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=MAXIMUM_LIMIT)] = DEFAULT_LIMIT
    """Items of a page."""


def encode_cursor(key: Any) -> str:
    """An opaque text for a key, given as plain JSON."""
    text = json.dumps(key, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, shape: TypeAdapter[Key]) -> Key:
    """The key; raises ``ValueError`` for what is no cursor of this list."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return shape.validate_json(text)
    except (binascii.Error, ValidationError) as error:
        raise ValueError("is not a next_cursor of this list with this sort") from error


def page_of(found: Sequence[Item], limit: int, key: Callable[[Item], Any]) -> Page[Item]:
    """A page from the items found, of which there is one more than ``limit`` where another page follows."""
    items = list(found[:limit])
    return Page(items=items, next_cursor=encode_cursor(key(items[-1])) if len(found) > limit else None)
