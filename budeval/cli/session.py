"""Which service a command talks to, and with which token."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from budeval.cli.contexts import Context, read_contexts
from budeval.cli.errors import UsageProblem
from budeval.cli.output import Output
from budeval.cli.secret_input import read_secret_file
from budeval.client import DEFAULT_SERVER, SERVER_VARIABLE, TOKEN_VARIABLE, Client

CONTEXT_VARIABLE = "BUDEVAL_CONTEXT"
TOKEN_FILE_VARIABLE = "BUDEVAL_TOKEN_FILE"  # noqa: S105 - the variable's name


@dataclass
class Session:
    """One call of the command line."""

    server: str | None = None
    """From ``--server``."""
    context: str | None = None
    """From ``--context``."""
    output: Output = field(default_factory=Output)

    def client(self) -> Client:
        """A client for the service that is meant; raises :class:`UsageProblem`."""
        target = self.target()
        try:
            return Client(target.server, target.token)
        except ValueError as error:
            raise UsageProblem(str(error)) from error

    def target(self) -> "Target":
        """The service: ``--server``, ``--context``, then their variables, then the current context, then this machine.

        A context's token goes to that context's server alone.
        """
        token = _token_of_environment()
        if self.server:
            return Target(self.server, "--server", token or "")
        if self.context:
            return _from_context(self.context, "--context", token)
        if os.environ.get(SERVER_VARIABLE):
            return Target(os.environ[SERVER_VARIABLE], SERVER_VARIABLE, token or "")
        if os.environ.get(CONTEXT_VARIABLE):
            return _from_context(os.environ[CONTEXT_VARIABLE], CONTEXT_VARIABLE, token)
        current = read_contexts().current
        if current is not None:
            return _from_context(current, "the current context", token)
        return Target(DEFAULT_SERVER, "the default", token or "")


@dataclass(frozen=True)
class Target:
    """A service to talk to."""

    server: str
    origin: str
    """Who said so."""
    token: str = field(repr=False, default="")


def _token_of_environment() -> str | None:
    if os.environ.get(TOKEN_VARIABLE):
        return os.environ[TOKEN_VARIABLE]
    if os.environ.get(TOKEN_FILE_VARIABLE):
        return read_secret_file(TOKEN_FILE_VARIABLE, Path(os.environ[TOKEN_FILE_VARIABLE]))
    return None


def _from_context(name: str, origin: str, token: str | None) -> Target:
    contexts = read_contexts().contexts
    if name not in contexts:
        known = ", ".join(sorted(contexts)) or "none yet; budeval context set makes one"
        raise UsageProblem(f"there is no context {name!r}; known: {known}")
    context: Context = contexts[name]
    own = context.token.get_secret_value() if context.token else ""
    return Target(context.server, f"{origin} {name!r}", token or own)
