"""Methods that a path does not have: 405 with every method that it does have, also where another path would fit."""

from collections.abc import Mapping
from http import HTTPMethod, HTTPStatus
from typing import Any, NamedTuple

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match, compile_path
from starlette.types import Receive, Scope, Send

_METHODS = frozenset(method.lower() for method in HTTPMethod.__members__)


class _Path(NamedTuple):
    pattern: Any
    path: str
    methods: frozenset[str]


class OtherMethods(BaseRoute):
    """Stands before all routes and takes the requests that none of them should get.

    Without it ``GET /evals/start`` would be the evaluation "start", and ``Allow`` would name the methods of one route
    where a path has several.
    """

    def __init__(self, methods: Mapping[str, frozenset[str]]) -> None:
        # A path without parameters is meant by its own name.
        paths = sorted(methods, key=lambda path: path.count("{"))
        self._paths = [_Path(compile_path(path)[0], path, methods[path]) for path in paths]

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Takes a request whose path is known and whose method is not."""
        if scope["type"] == "http":
            for known in self._paths:
                if known.pattern.match(scope["path"]):
                    refused = scope["method"] not in known.methods
                    return (Match.FULL, {"route": known}) if refused else (Match.NONE, {})
        return Match.NONE, {}

    async def handle(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        """Refuses it."""
        allowed = ", ".join(sorted(scope["route"].methods))
        raise HTTPException(HTTPStatus.METHOD_NOT_ALLOWED, headers={"Allow": allowed})


def refuse_other_methods(app: FastAPI) -> None:
    """To be called when every route is there; those of the OpenAPI document are known."""
    methods = {
        path: frozenset(method.upper() for method in operations if method in _METHODS)
        for path, operations in app.openapi()["paths"].items()
    }
    app.router.routes.insert(0, OtherMethods(methods))
