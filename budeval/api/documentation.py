"""``/docs``: the API for people, by Swagger UI.

All of it comes from the service, so that it works where no way leads out, and a reader's browser talks to nobody else:
the page's policy would not let it. The files are Swagger UI's own (Apache License 2.0), out of the package
fastapi-swagger (MIT), which is released with each version of it.
"""

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

PAGE = "/docs"
START = f"{PAGE}/start.js"
ASSETS: Mapping[str, str] = {
    f"{PAGE}/{name}": media_type
    for name, media_type in (
        ("swagger-ui-bundle.js", "text/javascript"),
        ("swagger-ui.css", "text/css"),
        ("favicon-32x32.png", "image/png"),
    )
}
"""Path of each of Swagger UI's files, and its media type."""
DOCUMENTATION_PATHS = frozenset({PAGE, START, *ASSETS, "/openapi.json"})

# References are relative, so that the page works behind a proxy that puts a path in front.
_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>budeval: API</title>
<link rel="icon" type="image/png" href="docs/favicon-32x32.png">
<link rel="stylesheet" href="docs/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="docs/swagger-ui-bundle.js"></script>
<script src="docs/start.js"></script>
</body>
</html>
"""
# Without a word about it, Swagger UI shows the address of the document to a validator of its makers.
_START = """\
SwaggerUIBundle({dom_id: "#swagger-ui", url: "openapi.json", deepLinking: true, validatorUrl: null});
"""
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "max-age=3600",
}


def documentation_router() -> APIRouter:
    """``/docs`` and what it needs."""
    router = APIRouter(include_in_schema=False)
    directory = Path(str(files("fastapi_swagger"))) / "resources"

    @router.get(PAGE)
    async def page() -> Response:
        return Response(_HTML, media_type="text/html", headers=_HEADERS)

    @router.get(START)
    async def start() -> Response:
        return Response(_START, media_type="text/javascript", headers=_HEADERS)

    def serve(path: str, media_type: str) -> None:
        async def asset() -> FileResponse:
            return FileResponse(directory / Path(path).name, media_type=media_type, headers=_HEADERS)

        router.add_api_route(path, asset, response_class=FileResponse)

    for path, media_type in ASSETS.items():
        serve(path, media_type)
    return router
