import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from jsonschema import Draft202012Validator
from prometheus_client.parser import text_string_to_metric_families

from budeval.commons.wire import WorkflowStatus
from tests.api.test_start import is_problem
from tests.samples import EVAL_ID, a_request

NOBODY = 1
"""A port on which nobody answers."""


class Stranger(BaseHTTPRequestHandler):
    """Something that is not daprd on daprd's port."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")

    def log_message(self, *_arguments):
        """Says nothing."""


@pytest.fixture
def stranger():
    server = HTTPServer(("127.0.0.1", 0), Stranger)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join(timeout=5)
    server.server_close()


def ready(service):
    response = service.client.get("/readyz")
    return response.status_code, {check["name"]: check for check in response.json()["checks"]}


def test_the_process_is_alive_whatever_is_missing(serve):
    response = serve(DAPR_HTTP_PORT=NOBODY).client.get("/livez")
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_readiness_names_each_dependency_and_what_is_wrong_with_it(serve):
    status, checks = ready(serve(DAPR_HTTP_PORT=NOBODY))
    assert status == 503
    assert {name: check["ok"] for name, check in checks.items()} == {
        "database": True,
        "sidecar": False,
        "pubsub": False,
        "workflow-worker": False,
    }
    assert all(check["detail"] for check in checks.values() if not check["ok"])


def test_a_stranger_on_the_sidecars_port_is_not_taken_for_it(serve, stranger):
    status, checks = ready(serve(DAPR_HTTP_PORT=stranger))
    assert (status, checks["pubsub"]["ok"]) == (503, False)
    assert checks["pubsub"]["detail"]


def test_a_record_that_cannot_be_read_is_answered_as_unavailable(service):
    with service.database.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE evaluations RENAME TO elsewhere")
    for response in (service.start(a_request()), service.client.get(f"/evals/{EVAL_ID}")):
        assert "Try again" in is_problem(response, 503)["detail"]
    assert service.workflows.scheduled == []


def metrics(service):
    text = service.client.get("/metrics").text
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_count_evaluations_by_status_and_requests_by_route(service):
    service.start(a_request())
    service.start(a_request(eval_id="555e4567-e89b-12d3-a456-426614174021"))
    service.record.finish(EVAL_ID, WorkflowStatus.FAILED)
    service.client.get(f"/evals/{EVAL_ID}")
    service.client.get("/no/such/route")
    service.client.request("BREW", "/no/such/route")
    found = metrics(service)
    assert found["budeval_evaluations", ("status", "PENDING")] == 1
    assert found["budeval_evaluations", ("status", "FAILED")] == 1
    assert found[("budeval_evaluations_notifications_waiting",)] == 0
    assert found[("process_open_fds",)] > 0
    count = "budeval_http_request_seconds_count"
    assert found[count, ("method", "POST"), ("route", "/evals/start"), ("status", "200")] == 2
    assert found[count, ("method", "GET"), ("route", "/evals/{eval_id}"), ("status", "200")] == 1
    assert found[count, ("method", "GET"), ("route", "unknown"), ("status", "404")] == 1
    assert found[count, ("method", "other"), ("route", "unknown"), ("status", "404")] == 1


# ------------------------------------------------------------------ documents and errors


def document(service):
    response = service.client.get("/openapi.json")
    assert response.status_code == 200
    return response.json()


def references(part):
    if isinstance(part, dict):
        yield from ([part["$ref"]] if isinstance(part.get("$ref"), str) else [])
        for value in part.values():
            yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def resolved(whole, reference):
    part = whole
    for name in reference.removeprefix("#/").split("/"):
        part = part[name]
    return part


def test_the_api_is_documented_as_openapi_3_1(shared):
    openapi = document(shared)
    assert openapi["openapi"].startswith("3.1.")
    assert {"title", "version"} <= set(openapi["info"])
    assert set(openapi["paths"]) == {
        "/evals", "/evals/start", "/evals/validate", "/evals/{eval_id}", "/evals/{eval_id}/cancel",
        "/evals/{eval_id}/notifications/resend",
        "/evals/{eval_id}/retry", "/evals/{eval_id}/results", "/evals/{eval_id}/timeline", "/evals/{eval_id}/events",
        "/evals/{eval_id}/runs/{run_id}/logs", "/engines", "/datasets", "/datasets/refresh", "/whoami",
        "/livez", "/readyz", "/metrics",
    }  # fmt: skip
    for schema in openapi["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    operations = [operation for path in openapi["paths"].values() for operation in path.values()]
    assert len({operation["operationId"] for operation in operations}) == len(operations)
    for operation in operations:
        assert all(answer["description"] for answer in operation["responses"].values())


def test_every_reference_in_the_document_leads_somewhere(shared):
    openapi = document(shared)
    assert all(resolved(openapi, reference) for reference in set(references(openapi)))


def test_problems_are_documented_by_their_media_type(shared):
    answers = {
        (path, status): set(answer["content"])
        for path, operations in document(shared)["paths"].items()
        for operation in operations.values()
        for status, answer in operation["responses"].items()
        if status >= "400" and path != "/readyz"
    }
    assert answers
    assert all(media_types == {"application/problem+json"} for media_types in answers.values()), answers


def test_a_real_problem_is_as_documented(shared):
    openapi = document(shared)
    schema = {"$ref": "#/components/schemas/Problem", "components": openapi["components"]}
    Draft202012Validator(schema).validate(shared.start(a_request(engine="unknown")).json())


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/", 404),
        ("DELETE", "/evals", 405),
        ("POST", "/datasets", 405),
        ("GET", "/evals/start/more", 404),
        ("PUT", "/evals/start", 405),
        ("GET", "/evals/start", 405),
        ("PUT", f"/evals/{EVAL_ID}", 405),
        ("GET", f"/evals/{EVAL_ID}/retry", 405),
        ("GET", f"/evals/{EVAL_ID}/cancel", 405),
        ("GET", f"/evals/{EVAL_ID}/notifications/resend", 405),
        ("POST", "/livez", 405),
        ("BREW", "/livez", 405),
    ],
)
def test_a_wrong_path_or_method_is_a_problem_too(shared, method, path, status):
    response = shared.client.request(method, path)
    is_problem(response, status)
    assert (status == 405) is ("allow" in response.headers)


def test_every_method_of_a_path_is_allowed_by_name(shared):
    assert shared.client.options("/evals").headers["allow"] == "GET, POST"
    assert shared.client.get("/evals/start").headers["allow"] == "POST"


def test_an_unexpected_error_says_nothing_of_its_inside(serve, caplog):
    service = serve()
    service.workflows.schedule = lambda _evaluation: 1 / 0
    problem = is_problem(service.start(a_request()), 500)
    assert problem["title"] == "Internal error"
    assert "division" not in str(problem)
    assert "division by zero" in caplog.text
