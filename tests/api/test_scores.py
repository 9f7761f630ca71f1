import csv
import io

import pytest

from budeval.commons.wire import WorkflowStatus
from budeval.evals.models import ErrorInfo, RunResult, Score
from tests.api.conftest import BOTH_DATABASES
from tests.api.test_start import is_problem
from tests.samples import EVAL_ID, a_request

DATABASES = BOTH_DATABASES

OTHER_ID = "555e4567-e89b-12d3-a456-426614174021"
BROKEN = ErrorInfo(reason="OutOfMemory", message="too little")
SCORES = [
    Score(dataset="siqa", version="18632c", metric="accuracy", mode="gen", score=35.42),
    Score(dataset="siqa", version="18632c", metric='odd "name", with a comma', mode="gen", score=0.1),
]


@pytest.fixture(scope="module")
def ended(serve):
    service = serve()
    datasets = [{"dataset_id": "siqa_gen", "run_id": "good"}, {"dataset_id": "piqa_gen", "run_id": "bad, really"}]
    service.start(a_request(eval_datasets=datasets))
    results = [RunResult(run_id="good", scores=SCORES), RunResult(run_id="bad, really", error=BROKEN)]
    service.record.save_results(EVAL_ID, results)
    service.record.finish(EVAL_ID, WorkflowStatus.COMPLETED)
    return service


def ask(service, accept=None, eval_id=EVAL_ID):
    return service.client.get(f"/evals/{eval_id}/results", headers={} if accept is None else {"Accept": accept})


@pytest.mark.parametrize(
    "accept", [None, "*/*", "application/json", "text/html, application/*;q=0.5", "", "text/csv;q=0.5, */*"]
)
def test_scores_and_reasons_as_json(ended, accept):
    response = ask(ended, accept)
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.headers["vary"] == "Accept"
    body = response.json()
    assert (body["eval_id"], body["status"]) == (EVAL_ID, "COMPLETED")
    good, bad = body["results"]
    assert set(good) == {
        "run_id", "dataset_id", "status", "scores", "error", "started_at", "ended_at", "duration_seconds",
    }  # fmt: skip
    assert (good["status"], good["scores"], good["error"]) == ("Succeeded", [s.model_dump() for s in SCORES], None)
    assert (bad["status"], bad["scores"], bad["error"]) == ("Failed", [], BROKEN.model_dump())


@pytest.mark.parametrize(
    "accept",
    ["text/csv", "TEXT/CSV; charset=utf-8", "text/*", "application/json;q=0.1, text/csv", "application/json;q=0, */*"],
)
def test_scores_and_reasons_as_csv(ended, accept):
    response = ask(ended, accept)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/csv; charset=utf-8")
    assert list(csv.reader(io.StringIO(response.text))) == [
        ["eval_id", "run_id", "dataset_id", "dataset", "version", "metric", "mode", "score", "status", "reason"],
        [EVAL_ID, "good", "siqa_gen", "siqa", "18632c", "accuracy", "gen", "35.42", "Succeeded", ""],
        [EVAL_ID, "good", "siqa_gen", "siqa", "18632c", 'odd "name", with a comma', "gen", "0.1", "Succeeded", ""],
        [EVAL_ID, "bad, really", "piqa_gen", "", "", "", "", "", "Failed", "OutOfMemory"],
    ]


@pytest.mark.parametrize("accept", ["text/html", "application/xml;q=0.9", "text/csv;q=0", "*/*;q=0", "nonsense"])
def test_what_it_cannot_be_had_as_is_not_acceptable(ended, accept):
    assert "text/csv" in is_problem(ask(ended, accept), 406)["detail"]


@pytest.mark.parametrize("accept", ["text/csv", "application/json", "text/html"])
def test_an_evaluation_that_nobody_asked_for_has_no_results(ended, accept):
    is_problem(ask(ended, accept, OTHER_ID), 404)
