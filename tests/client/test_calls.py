import socket
import uuid

import pytest

from budeval.client import (
    Client,
    Conflict,
    DatasetRun,
    EvaluationRequest,
    InvalidRequest,
    NotFound,
    Unauthorized,
    UnexpectedAnswer,
    Unreachable,
)
from tests.client.service import complete, fail, url_of
from tests.samples import EVAL_ID


def a_request(**changes):
    values = {
        "model_name": "small-model",
        "endpoint": "http://127.0.0.1:13200/v1",
        "api_key": "sk-a-key-of-a-test",
        "datasets": [DatasetRun(dataset_id="siqa_gen"), DatasetRun(dataset_id="piqa_gen")],
    }
    return EvaluationRequest.model_validate({**values, **changes})


def test_ids_are_made_where_the_request_has_none(client, service):
    started = client.start(a_request())
    assert str(uuid.UUID(started.eval_id)) == started.eval_id
    assert [run_id.rpartition("-")[0] for run_id in started.run_ids] == ["siqa_gen", "piqa_gen"]
    assert [run.run_id for run in client.evaluation(started.eval_id).runs] == started.run_ids
    assert service.created().scheduled == [started.eval_id]


def test_ids_of_the_request_are_kept(client):
    started = client.start(a_request(eval_id=EVAL_ID, datasets=[DatasetRun(dataset_id="siqa_gen", run_id="mine")]))
    assert (started.eval_id, started.run_ids) == (EVAL_ID, ["mine"])


def test_an_evaluation_asked_for_twice_is_started_once(client, service):
    request = a_request(eval_id=EVAL_ID, datasets=[DatasetRun(dataset_id="siqa_gen", run_id="mine")])
    assert client.start(request) == client.start(request)
    assert service.created().evaluations == [EVAL_ID]


def test_another_request_with_the_same_id_is_a_conflict(client):
    client.start(a_request(eval_id=EVAL_ID))
    with pytest.raises(Conflict) as refused:
        client.start(a_request(eval_id=EVAL_ID))
    assert refused.value.status == 409


def test_a_refused_request_names_its_fields(client):
    with pytest.raises(InvalidRequest) as refused:
        client.start(a_request(datasets=[DatasetRun(dataset_id="siqa_genn")], parameters={"speed": 1}))
    fields = [problem.field for problem in refused.value.problem.errors]
    assert fields == ["eval_datasets.0.dataset_id", "eval_model_info.extra_args.speed"]
    assert "siqa_gen" in str(refused.value)


def test_an_unknown_evaluation_is_not_found(client):
    with pytest.raises(NotFound):
        client.evaluation(EVAL_ID)


def test_lists_go_on_over_all_pages(client):
    made = [client.start(a_request(model_name=f"model-{number}")).eval_id for number in range(5)]
    listed = [summary.eval_id for summary in client.evaluations(sort="model", page_size=2)]
    assert listed == made


def test_lists_can_be_filtered(client, service):
    wanted = client.start(a_request(model_name="wanted")).eval_id
    other = client.start(a_request(model_name="other")).eval_id
    complete(service, other)
    assert [summary.eval_id for summary in client.evaluations(model="wanted")] == [wanted]
    assert [summary.eval_id for summary in client.evaluations(status="COMPLETED")] == [other]


def test_results_have_the_scores(client, service):
    eval_id = client.start(a_request()).eval_id
    complete(service, eval_id)
    results = client.results(eval_id)
    assert [score.score for run in results.results for score in run.scores] == [35.42, 35.42]
    assert client.results_csv(eval_id).splitlines()[0].startswith("eval_id,run_id,dataset_id,")


def test_results_say_why_there_is_no_score(client, service):
    eval_id = client.start(a_request()).eval_id
    fail(service, eval_id)
    assert {run.error.reason for run in client.results(eval_id).results} == {"EndpointUnauthorized"}


def test_the_timeline_tells_how_it_began_and_ended(client, service):
    eval_id = client.start(a_request()).eval_id
    fail(service, eval_id)
    kinds = [entry.kind for entry in client.timeline(eval_id)]
    assert (kinds[0], kinds[-1]) == ("created", "end")


def test_an_evaluation_can_be_cancelled(client, service):
    eval_id = client.start(a_request()).eval_id
    assert client.cancel(eval_id).cancelled_by == "api"
    assert service.workflows.events


def test_data_sets_and_engines_are_listed(client):
    assert "siqa_gen" in [found.dataset_id for found in client.datasets(search="siqa", usable=True)]
    assert [engine.name for engine in client.engines()] == ["opencompass"]


def test_a_service_that_is_not_ready_says_what_is_missing(client):
    readiness = client.readiness()
    assert not readiness.ready
    assert {check.name: check.ok for check in readiness.checks}["database"] is True


def test_a_dead_service_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as client, pytest.raises(Unreachable):
        client.evaluation(EVAL_ID)


def test_a_silent_service_is_given_up_in_time():
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        Client(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.2) as client,
        pytest.raises(Unreachable, match="in time"),
    ):
        client.evaluation(EVAL_ID)


def test_the_token_comes_from_the_environment(service, monkeypatch, proxy):
    monkeypatch.setenv("BUDEVAL_SERVER", proxy.url)
    monkeypatch.setenv("BUDEVAL_TOKEN", "a-token\n")
    with Client() as client:
        list(client.evaluations())
    assert b"authorization: bearer a-token\r\n" in proxy.requests.lower()


@pytest.mark.parametrize("token", ["two words", "two\nlines", "smörgås"])
def test_a_token_that_cannot_be_one_is_refused_and_not_told(token):
    with pytest.raises(ValueError, match="printable") as refused:
        Client(token=token)
    assert token not in str(refused.value)


@pytest.mark.parametrize("server", ["", "ftp://host", "http://", "http://user:word@host", "http://host?a=b", "host:1"])
def test_a_server_that_cannot_be_one_is_refused(server):
    with pytest.raises(ValueError, match="http or https"):
        Client(server or "nothing")


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        ("401 Unauthorized", b"", Unauthorized),
        ("200 OK", b"<html>hello</html>", UnexpectedAnswer),
        ("200 OK", b"[]", UnexpectedAnswer),
        ("200 OK", b'{"eval_id": 1}', UnexpectedAnswer),
        ("302 Found", b"", UnexpectedAnswer),
        ("404 Not Found", b"<html>", NotFound),
    ],
)
def test_something_else_that_answers_is_told_apart(answering, status, body, kind):
    with Client(answering(status, body)) as client, pytest.raises(kind):
        client.evaluation(EVAL_ID)


def test_url_of_the_service_may_end_with_a_slash(service):
    with Client(url_of(service) + "/") as client:
        assert list(client.evaluations()) == []
