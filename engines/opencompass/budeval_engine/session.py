"""The one attempt that this process makes: what the OpenCompass model needs and no configuration file may hold.

OpenCompass builds its model from a configuration that it writes to disk and reads again, filling in `{{ ... }}` on the
way, environment variables among them. So the model's name, the endpoint and the key stay out of it, and the model takes
them from here.
"""

from dataclasses import dataclass

from budeval_engine.asking import ProgressReport, Tally
from budeval_engine.endpoint import EndpointClient
from budeval_engine.journal import Journal


@dataclass(frozen=True)
class Session:
    """What one attempt shares."""

    client: EndpointClient
    journal: Journal
    report: ProgressReport
    tally: Tally


_current: list[Session] = []


def begin(session: Session) -> None:
    """Make `session` the one that models use."""
    _current[:] = [session]


def end() -> None:
    """Forget the session, the key in it above all."""
    _current.clear()


def current() -> Session:
    """Return the session; there is always one when OpenCompass runs."""
    return _current[0]
