"""Where tokens are kept, and how a change of them is noticed without a restart."""

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import httpx
from pydantic import SecretStr

from budeval.access.callers import RecognitionUnavailable
from budeval.access.tokens import MAXIMUM_DOCUMENT_BYTES, TokenSet, parse_tokens

logger = logging.getLogger("::EVAL:: Access")

LOOK_SECONDS = 1.0
"""A file is read at most so often: it has some kilobytes, and its content alone never lies about a change."""
STORE_TIMEOUT_SECONDS = 5.0
IMPATIENT_SECONDS = 1.0
"""Between two questions to a secret store that has not answered yet: nobody can call until it does."""


class TokenSource(Protocol):
    """Something that has tokens."""

    def current(self) -> TokenSet:
        """The tokens as they are now. Raises :class:`RecognitionUnavailable` where none were ever read."""

    def start(self) -> None:
        """Begins to look for changes."""

    def stop(self) -> None:
        """Ends what :meth:`start` began."""


class FileTokens:
    """Tokens in a file, which may be replaced or changed at any time. A file that breaks changes nothing."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ``ValueError`` or ``OSError`` where the file cannot be used."""
        self._path = path
        self._clock = clock
        self._content = _read(path)
        self._tokens = parse_tokens(self._content)
        self._looked = clock()
        self._trouble = ""

    def current(self) -> TokenSet:
        """The tokens as they were at most a second ago."""
        if self._clock() - self._looked >= LOOK_SECONDS:
            self._looked = self._clock()
            self._look()
        return self._tokens

    def start(self) -> None:
        """Nothing runs in the background."""

    def stop(self) -> None:
        """Nothing runs in the background."""

    def _look(self) -> None:
        try:
            content = _read(self._path)
            if content != self._content:
                self._tokens = parse_tokens(content)
                self._content = content
                logger.info("%s has changed: %d tokens", self._path, len(self._tokens))
            self._trouble = ""
        except (OSError, ValueError) as error:
            self._tell(f"{self._path} {_why(error)}; the tokens that were read before stay in force")

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            logger.error("%s", trouble)
        self._trouble = trouble


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAXIMUM_DOCUMENT_BYTES + 1)


def _why(error: OSError | ValueError) -> str:
    return f"cannot be read: {error.strerror}" if isinstance(error, OSError) else str(error)


class SecretStoreTokens:
    """Tokens in a Dapr secret store, asked for in the background: daprd starts after the service."""

    def __init__(self, url: str, key: str, token: SecretStr | None, refresh_seconds: float) -> None:
        """``url`` names the secret in daprd's HTTP API, ``key`` the entry in it, ``token`` is daprd's."""
        self._url = url
        self._key = key
        self._headers = {"dapr-api-token": token.get_secret_value()} if token else {}
        self._refresh = refresh_seconds
        self._tokens: TokenSet | None = None
        self._trouble = "it was not asked yet"
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="budeval-tokens", daemon=True)

    def current(self) -> TokenSet:
        """The tokens that were read last; daprd may be away since."""
        if self._tokens is None:
            raise RecognitionUnavailable(f"the tokens could not be read from the secret store: {self._trouble}")
        return self._tokens

    def start(self) -> None:
        """Asks from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Asks no more."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout=STORE_TIMEOUT_SECONDS + 1)

    def _keep(self) -> None:
        while not self._stopping.is_set():
            self.refresh()
            impatient = min(IMPATIENT_SECONDS, self._refresh)
            self._stopping.wait(impatient if self._tokens is None else self._refresh)

    def refresh(self) -> None:
        """Asks once; what cannot be read or understood changes nothing."""
        try:
            self._tokens = parse_tokens(self._asked())
            self._trouble = ""
        except (httpx.HTTPError, ValueError) as error:
            trouble = str(error) or type(error).__name__
            if trouble != self._trouble:
                logger.error("the tokens in the secret store cannot be read: %s", trouble)
            self._trouble = trouble

    def _asked(self) -> bytes:
        answer = httpx.get(self._url, headers=self._headers, timeout=STORE_TIMEOUT_SECONDS)
        if answer.status_code != httpx.codes.OK:
            raise ValueError(f"daprd answers {answer.status_code} to {self._url}")
        secret = _json(answer)
        if not isinstance(secret, dict) or not isinstance(secret.get(self._key), str):
            raise ValueError(f"the secret has no text under {self._key!r}")
        return str(secret[self._key]).encode()


def _json(answer: httpx.Response) -> object:
    try:
        return answer.json()
    except ValueError as error:
        # The parser's own words would quote the secret.
        raise ValueError("daprd does not answer with JSON") from error
