"""Links in the OpenAPI document: an evaluation that was started can be asked about under the id in the answer."""

from typing import Any

from fastapi import FastAPI

EVALUATION_PATH = "/evals/{eval_id}"
_STARTED = (("/evals", "201"), ("/evals/start", "200"))
_ID = {"eval_id": "$response.body#/workflow_id"}


def document_links(app: FastAPI) -> None:
    """Adds to the answer of a start a link to every operation that needs an eval_id alone."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        document = generate()
        links = {
            operation["operationId"]: {"operationId": operation["operationId"], "parameters": _ID}
            for path, operations in document["paths"].items()
            if path.startswith(EVALUATION_PATH) and path.count("{") == 1
            for operation in operations.values()
        }
        for path, status in _STARTED:
            document["paths"][path]["post"]["responses"][status]["links"] = links
        return document

    app.openapi = openapi  # type: ignore[method-assign]
