"""Logs over real connections; the cluster behind them is scripted."""

import base64
from urllib.parse import quote

import pytest

from budeval.api.log_streams import LEFT_OUT
from budeval.commons.errors import ClusterUnauthorized, ClusterUnreachable
from budeval.commons.wire import WorkflowStatus
from budeval.evals.models import ErrorInfo
from budeval.evals.monitoring import RunUpdate
from budeval.jobs.logs import LogFile
from budeval.jobs.models import JobState
from budeval.jobs.names import job_name
from tests.api.test_history import OTHER_ID
from tests.api.test_listing import id_of
from tests.api.test_start import is_problem
from tests.samples import EVAL_ID, KUBECONFIG, TOKEN, a_request
from tests.scripted_logs import deployed

RUN = "test-monitor-pattern-001"
KEY = "an-ordinary/canary+of=a-key"
PATH = f"/evals/{EVAL_ID}/runs/{RUN}/logs"


@pytest.fixture
def cluster(scripted_logs):
    return scripted_logs


@pytest.fixture
def served(cluster, service):
    """A service with one evaluation, whose Jobs are there."""
    service.start(a_request(eval_model_info__api_key=KEY))
    deployed(service, EVAL_ID)
    return service


def logs(service, path=PATH, **query):
    return service.client.get(path, params=query)


def text_of(response):
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"
    return response.text


def ends(service, state=JobState.SUCCEEDED):
    """The run has ended, and soon its evaluation will."""
    error = None if state is JobState.SUCCEEDED else ErrorInfo(reason="OOMKilled", message="too much", resolution="x")
    service.record.update_runs(EVAL_ID, [RunUpdate(run_id=RUN, status=state, error=error)])


def test_the_log_of_the_pod_is_text_without_times_and_progress(served, cluster):
    cluster.pod("loading", '{"budeval":"progress","phase":"inference","done":1,"total":2}', "asking — ü")
    assert text_of(logs(served)) == "loading\nasking — ü\n"
    assert cluster.asked == [("pod", job_name(EVAL_ID, RUN))]


def test_the_last_lines_and_those_of_the_last_minutes_can_be_asked_for(served, cluster):
    pod = cluster.pod()
    pod.say("old", ago=3600)
    pod.say("recent", ago=60)
    pod.say("new")
    assert text_of(logs(served, tail=1)) == "new\n"
    assert text_of(logs(served, tail=0)) == ""
    assert text_of(logs(served, since="10m")) == "recent\nnew\n"
    assert text_of(logs(served, since="10m", tail=1)) == "new\n"
    assert text_of(logs(served, since="2h")) == "old\nrecent\nnew\n"
    assert text_of(logs(served, since="1s")) == "new\n"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"tail": "-1"}, "tail"),
        ({"tail": "x"}, "tail"),
        ({"tail": str(10**9)}, "tail"),
        ({"since": "10"}, "since"),
        ({"since": "-5m"}, "since"),
        ({"since": "9" * 40}, "since"),
        ({"since": "2026-01-01T10:00:00Z"}, "since"),
        ({"follow": "maybe"}, "follow"),
        ({"lines": "5"}, "lines"),
    ],
)
def test_a_parameter_that_is_wrong_is_refused_by_name(served, cluster, query, field):
    problem = is_problem(logs(served, **query), 422)
    assert [error["field"] for error in problem["errors"]] == [field]
    assert cluster.asked == []


def test_after_the_pod_is_gone_the_volume_is_read(served, cluster):
    cluster.file = LogFile(text="2026-01-01T10:00:01.000000Z from the file\n")
    assert text_of(logs(served)) == "from the file\n"
    assert cluster.asked == [("pod", job_name(EVAL_ID, RUN)), ("file", job_name(EVAL_ID, RUN))]


def test_the_volume_is_read_directly_where_it_is_mounted(cluster, serve, tmp_path):
    service = serve(results_mount=tmp_path)
    service.start(a_request())
    deployed(service, EVAL_ID)
    place = tmp_path / "results" / EVAL_ID / job_name(EVAL_ID, RUN)
    place.mkdir(parents=True)
    (place / "engine.log").write_text("2026-01-01T10:00:01.000000Z from the mount\n")
    assert text_of(logs(service)) == "from the mount\n"
    assert ("file", job_name(EVAL_ID, RUN)) not in cluster.asked
    (place / "engine.log").unlink()
    (place / "engine.log").symlink_to("/etc/passwd")
    assert "root:" not in logs(service).text
    is_problem(logs(service), 503)


def test_a_log_that_is_too_large_says_so_first(served, cluster):
    cluster.file = LogFile(text="the end\n", cut=True)
    assert text_of(logs(served)) == f"{LEFT_OUT.text}\nthe end\n"
    assert text_of(logs(served, tail=0)) == ""


def test_a_run_of_a_retried_attempt_has_its_own_job_and_the_same_directory(served, cluster):
    with served.database.begin() as connection:
        connection.exec_driver_sql("UPDATE runs SET job_name = 'second-attempt'")
    cluster.file = LogFile(text="kept\n")
    assert text_of(logs(served)) == "kept\n"
    assert cluster.asked == [("pod", "second-attempt"), ("file", job_name(EVAL_ID, RUN))]


def test_while_another_attempt_waits_the_log_of_the_one_before_is_there(cluster, service):
    service.start(a_request())
    with service.database.begin() as connection:
        connection.exec_driver_sql("UPDATE evaluations SET attempt = 2")
    cluster.file = LogFile(text="kept\n")
    assert text_of(logs(service)) == "kept\n"


def test_a_run_id_may_be_any_text(cluster, service):
    for number, run_id in enumerate(["a/b", "../../x", "ü 实?#%2F&", "logs", "a/logs"]):
        eval_id = id_of(number)
        service.start(a_request(eval_id=eval_id, eval_datasets=[{"dataset_id": "siqa_gen", "run_id": run_id}]))
        deployed(service, eval_id)
        cluster.pods = []
        cluster.pod(run_id)
        path = f"/evals/{eval_id}/runs/{quote(run_id, safe='').replace('.', '%2E')}/logs"
        assert text_of(logs(service, path)) == f"{run_id}\n"


# ---------------------------------------------------------------- no log


@pytest.mark.parametrize("follow", [False, True])
@pytest.mark.parametrize("path", [f"/evals/{OTHER_ID}/runs/{RUN}/logs", f"/evals/{EVAL_ID}/runs/other/logs"])
def test_what_nobody_asked_for_has_no_log(served, cluster, path, follow):
    is_problem(logs(served, path, follow=follow), 404)
    assert cluster.asked == []


def test_a_run_that_is_not_deployed_has_no_log_yet(cluster, service):
    service.start(a_request())
    problem = is_problem(logs(service), 404)
    assert (problem["title"], cluster.asked) == ("No log yet", [])
    assert "follow it" in problem["detail"]


def test_a_pod_that_does_not_start_has_no_log_and_a_reason(served, cluster):
    cluster.pod(started=False).message = "trying and failing to pull image"
    problem = is_problem(logs(served), 404)
    assert problem["title"] == "No log yet"
    assert "failing to pull image" in problem["detail"]
    assert [kind for kind, _ in cluster.asked] == ["pod"]


def test_a_run_that_ended_without_a_log_says_why_it_ended(served, cluster):
    ends(served, JobState.FAILED)
    problem = is_problem(logs(served), 404)
    assert problem["title"] == "No log"
    assert "OOMKilled: too much" in problem["detail"]


@pytest.mark.parametrize("follow", [False, True])
def test_a_log_in_a_cluster_whose_kubeconfig_is_erased_is_gone(cluster, service, follow):
    service.start(a_request(kubeconfig=KUBECONFIG))
    deployed(service, EVAL_ID)
    cluster.pod("there")
    assert text_of(logs(service)) == "there\n"
    assert cluster.kubeconfigs == {KUBECONFIG}
    service.record.finish(EVAL_ID, WorkflowStatus.COMPLETED)
    problem = is_problem(logs(service, follow=follow), 410)
    assert f"results/{EVAL_ID}/{job_name(EVAL_ID, RUN)}/engine.log" in problem["detail"]
    assert len(cluster.asked) == 1


@pytest.mark.parametrize(
    ("error", "status"), [(ClusterUnreachable("nobody answers"), 503), (ClusterUnauthorized("who are you"), 502)]
)
def test_a_cluster_that_does_not_answer_is_a_problem(served, cluster, error, status):
    cluster.failing = error
    is_problem(logs(served), status)


# ---------------------------------------------------------------- secrets and hostile text


SPELLINGS = [
    KEY,
    quote(KEY),
    quote(KEY, safe=""),
    KEY.encode().hex(),
    *(base64.b64encode(b"." * before + KEY.encode() + b"!").decode() for before in range(3)),
]


def secret_parts(text):
    codes = [base64.b64encode(b"." * before + KEY.encode()).decode()[4 : -4 or None] for before in range(3)]
    return [part for part in ("canary", KEY.encode().hex(), *codes) if part in text]


def test_the_key_is_in_no_answer_during_the_evaluation(served, cluster):
    assert all(secret_parts(text) for text in SPELLINGS)
    cluster.pod(*(f"refused: {text}" for text in SPELLINGS))
    for response in (logs(served), logs(served, tail=3)):
        text = text_of(response)
        assert secret_parts(text) == []
        assert text.count("[redacted]") == len(text.splitlines())


def test_credentials_of_the_kubeconfig_are_masked_too(cluster, service):
    service.start(a_request(kubeconfig=KUBECONFIG))
    deployed(service, EVAL_ID)
    cluster.pod(f"said {TOKEN} there")
    assert text_of(logs(service)) == "said [redacted] there\n"


def test_control_characters_are_replaced(served, cluster):
    cluster.pod("\x1b[2J\x1b]0;title\x07red\ttab\r\x00\x9b1m\u202e end", "<script>alert(1)</script>")
    assert text_of(logs(served)) == "�[2J�]0;title�red\ttab���1m� end\n<script>alert(1)</script>\n"
