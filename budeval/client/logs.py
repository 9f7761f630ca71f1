"""The engine's log of one run, line by line."""

import codecs
from collections.abc import Iterator
from urllib.parse import quote

import httpx

from budeval.client.errors import UnexpectedAnswer, Unreachable, problem_error
from budeval.client.feed import END_KIND, EventFeed


def log_path(eval_id: str, run_id: str) -> str:
    """Where a log is; a run id may be any text."""
    # Dots too: a path has no segment "..".
    return f"/evals/{eval_id}/runs/{quote(run_id, safe='').replace('.', '%2E')}/logs"


def log_lines(http: httpx.Client, path: str, query: dict[str, str]) -> Iterator[str]:
    """The lines that there are."""
    try:
        with http.stream("GET", path, params=query) as response:
            if response.is_error:
                response.read()
                raise problem_error(response)
            if not response.headers.get("Content-Type", "").startswith("text/plain"):
                raise UnexpectedAnswer(f"{path} does not answer with a log; the service may be too old")
            yield from _lines(response.iter_bytes())
    except httpx.TimeoutException as error:
        raise Unreachable("the service does not answer in time") from error
    except httpx.HTTPError as error:
        raise Unreachable(f"the log broke off: {error}") from error


def followed_lines(feed: EventFeed) -> Iterator[str]:
    """Lines as they come, until the service says that no more will."""
    for event in feed.events(lambda: False):
        if event.event != END_KIND:
            yield event.data


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    decoder, rest = codecs.getincrementaldecoder("utf-8")("replace"), ""
    for chunk in chunks:
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        yield from lines
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest
