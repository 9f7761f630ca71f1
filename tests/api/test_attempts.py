"""``POST /evals/{eval_id}/retry`` and ``DELETE /evals/{eval_id}``."""

import json
import logging

import pytest

from budeval.commons.errors import ClusterUnauthorized, ClusterUnreachable
from budeval.commons.wire import WorkflowStatus
from budeval.evals.models import ErrorInfo, RunResult, Score
from tests.api.test_start import is_problem
from tests.samples import EVAL_ID, KUBECONFIG, a_request

KEY = "sk-canary-of-a-retry"
RUNS = [{"dataset_id": "siqa_gen", "run_id": "good"}, {"dataset_id": "piqa_gen", "run_id": "bad"}]
SCORE = Score(dataset="siqa", version="1", metric="accuracy", mode="gen", score=35.42)
BROKEN = ErrorInfo(reason="EndpointUnauthorized", message="401")
URL = f"/evals/{EVAL_ID}/retry"


class Cluster:
    """Stands where the orchestrator would be, as far as a deletion asks it."""

    def __init__(self):
        self.calls, self.error = [], None

    def remove_evaluation(self, eval_id, attempts):
        self._note(("cluster", eval_id, attempts))

    def remove_results(self, eval_id):
        self._note(("files", eval_id))

    def _note(self, call):
        if self.error is not None:
            raise self.error
        self.calls.append(call)


@pytest.fixture
def cluster():
    return Cluster()


@pytest.fixture
def service(serve, cluster):
    return serve(orchestrator=cluster)


@pytest.fixture
def ended(service):
    """Starts an evaluation and ends it: ``good`` has a score, ``bad`` has none."""

    def make(*scored, status=WorkflowStatus.COMPLETED, **changes):
        assert service.start(a_request(eval_datasets=RUNS, **changes)).status_code == 200
        results = [RunResult(run_id=run, scores=[SCORE]) for run in scored or ("good",)]
        service.record.save_results(EVAL_ID, results)
        service.record.finish(EVAL_ID, status, BROKEN)
        service.workflows.scheduled.clear()

    return make


def fields(response):
    return [error["field"] for error in is_problem(response, 422)["errors"]]


# ------------------------------------------------------------------ retry


def test_a_retry_is_accepted_with_what_it_runs_and_where_to_look(service, ended):
    ended()
    response = service.client.post(f"{URL}?only=failed", json={"api_key": KEY})
    assert (response.status_code, response.headers["location"]) == (202, f"/evals/{EVAL_ID}")
    answer = response.json()
    assert (answer["object"], answer["workflow_id"], answer["status"]) == ("workflow_metadata", EVAL_ID, "PENDING")
    assert (answer["attempt"], answer["run_ids"], len(answer["steps"])) == (2, ["bad"], 4)
    assert [(item.attempt, item.run_ids) for item in service.workflows.scheduled] == [(2, ["bad"])]
    shown = service.client.get(f"/evals/{EVAL_ID}").json()
    assert (shown["status"], shown["attempt"]) == ("PENDING", 2)
    assert [(run["run_id"], run["attempt"], len(run["scores"])) for run in shown["runs"]] == [
        ("good", 1, 1),
        ("bad", 2, 0),
    ]
    assert service.record.open_secrets(EVAL_ID).api_key.get_secret_value() == KEY


@pytest.mark.parametrize("options", [{}, {"json": {}}, {"json": None}, {"params": {"only": "failed"}}])
def test_a_retry_without_secrets_needs_no_body(service, ended, options):
    ended(eval_model_info__api_key="")
    assert service.client.post(URL, **options).status_code == 202


def test_a_key_that_was_missing_can_be_brought(service, ended):
    ended(eval_model_info__api_key="")
    assert service.client.post(URL, json={"api_key": KEY}).status_code == 202
    assert service.record.definition(EVAL_ID).has_api_key


def test_a_retry_may_change_timeouts_and_resources(service, ended):
    ended(eval_configs=[{"config_name": "max_questions", "config_value": 24}])
    body = {
        "api_key": KEY,
        "eval_configs": [{"config_name": "max_checks", "config_value": "99"}],
        "resources": {"requests": {"cpu": "500m"}, "limits": {"memory": "4Gi", "ephemeral-storage": "1e9"}},
    }
    assert service.client.post(URL, json=body).status_code == 202
    evaluation = service.record.definition(EVAL_ID)
    assert evaluation.monitor.model_dump() == {"poll_interval": 30, "max_checks": 99, "progress_every": 10}
    assert evaluation.max_questions == 24
    assert evaluation.resources.model_dump() == body["resources"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ({}, "api_key"),
        ({"api_key": "a\nb"}, "api_key"),
        ({"api_key": "x" * 5000}, "api_key"),
        ({"api_key": KEY, "kubeconfig": KUBECONFIG}, "kubeconfig"),
        ({"api_key": KEY, "model": "other"}, "model"),
        ({"api_key": KEY, "eval_id": EVAL_ID}, "eval_id"),
        ({"api_key": KEY, "eval_configs": [{"config_name": "max_questions", "config_value": 1}]},
         "eval_configs.0.config_name"),
        ({"api_key": KEY, "eval_configs": [{"config_name": "x", "config_value": 1}]}, "eval_configs.0.config_name"),
        ({"api_key": KEY, "eval_configs": [{"config_name": "max_checks", "config_value": 0}]},
         "eval_configs.0.config_value"),
        ({"api_key": KEY, "resources": {"limits": {"memory": "{{ 1 }}"}}}, "resources.limits.memory"),
        ({"api_key": KEY, "resources": {"limits": {"memory": "0"}}}, "resources.limits.memory"),
        ({"api_key": KEY, "resources": {"limits": {"nvidia.com/gpu": "1"}}}, "resources.limits.nvidia.com/gpu.[key]"),
        ({"api_key": KEY, "resources": {"claims": []}}, "resources.claims"),
        ({"api_key": KEY, "resources": {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}}, "resources"),
        ([], "body"),
    ],
)  # fmt: skip
def test_a_retry_that_cannot_be_run_is_refused_with_the_field(service, ended, caplog, body, problem):
    caplog.set_level(logging.INFO)
    ended()
    response = service.client.post(URL, json=body)
    assert fields(response) == [problem]
    assert service.workflows.scheduled == []
    assert service.record.view(EVAL_ID).attempt == 1
    assert "canary" not in response.text + caplog.text


@pytest.mark.parametrize(("given", "refused"), [(KUBECONFIG, False), ("", True), ("users: [", True)])
def test_the_kubeconfig_of_an_evaluations_own_cluster_is_needed_again(service, ended, given, refused):
    ended(kubeconfig=KUBECONFIG)
    response = service.client.post(URL, json={"api_key": KEY, "kubeconfig": given})
    if refused:
        assert fields(response) == ["kubeconfig"]
    else:
        assert response.status_code == 202
        assert service.record.open_secrets(EVAL_ID).kubeconfig_text == KUBECONFIG


@pytest.mark.parametrize("only", ["all", "", "failed,good", "FAILED"])
def test_only_known_runs_can_be_chosen(service, ended, only):
    ended()
    assert fields(service.client.post(URL, params={"only": only}, json={"api_key": KEY})) == ["only"]


def test_what_runs_or_has_all_scores_is_a_conflict(service, ended):
    assert service.start(a_request()).status_code == 200
    assert "PENDING" in is_problem(service.client.post(URL, json={"api_key": KEY}), 409)["detail"]
    service.record.finish(EVAL_ID, WorkflowStatus.FAILED)
    assert service.client.post(URL, json={"api_key": KEY}).status_code == 202
    problem = is_problem(service.client.post(URL, json={"api_key": KEY}), 409)
    assert "let it end" in problem["detail"]


def test_where_every_run_has_scores_there_is_nothing_to_retry(service, ended):
    ended("good", "bad")
    assert "every run" in is_problem(service.client.post(URL, json={"api_key": KEY}), 409)["detail"]


def test_the_first_request_again_starts_nothing_while_another_attempt_runs(service, ended):
    ended()
    service.client.post(URL, json={"api_key": KEY})
    assert service.start(a_request(eval_datasets=RUNS)).status_code == 409


def test_a_cancel_reaches_the_workflow_of_the_present_attempt(service, ended):
    ended()
    service.client.post(URL, json={"api_key": KEY})
    assert service.client.post(f"/evals/{EVAL_ID}/cancel").status_code == 200
    assert service.workflows.events == [
        (f"{EVAL_ID}-attempt-2", "cancel"),
        (f"{EVAL_ID}-attempt-2-monitor", "cancel"),
    ]


def test_a_retry_is_kept_while_daprd_is_away(service, ended):
    ended()
    service.workflows.away = True
    assert service.client.post(URL, json={"api_key": KEY}).status_code == 202
    assert [item.attempt for item in service.record.active()] == [2]


@pytest.mark.parametrize(("method", "path"), [("POST", URL), ("DELETE", f"/evals/{EVAL_ID}")])
def test_what_nobody_asked_for_is_not_found(service, method, path):
    is_problem(service.client.request(method, path), 404)


# ------------------------------------------------------------------ delete


def delete(service):
    return service.client.delete(f"/evals/{EVAL_ID}")


def test_a_deletion_removes_cluster_files_workflows_and_record(service, ended, cluster):
    ended()
    service.client.post(URL, json={"api_key": KEY})
    service.record.finish(EVAL_ID, WorkflowStatus.FAILED)
    response = delete(service)
    assert (response.status_code, response.content) == (204, b"")
    assert cluster.calls == [("cluster", EVAL_ID, 2), ("files", EVAL_ID)]
    second = f"{EVAL_ID}-attempt-2"
    workflows = [f"{attempt}{kind}" for attempt in (EVAL_ID, second) for kind in ("-monitor", "", "-closing")]
    assert service.workflows.purged == workflows
    assert service.created().evaluations == []
    is_problem(delete(service), 404)


def test_nothing_is_removed_in_an_evaluations_own_cluster(service, ended, cluster):
    ended(kubeconfig=KUBECONFIG)
    assert delete(service).status_code == 204
    assert cluster.calls == []


def test_what_runs_is_not_deleted(service, cluster):
    service.start(a_request())
    assert "cancel it" in is_problem(delete(service), 409)["detail"]
    assert cluster.calls == []


@pytest.mark.parametrize("error", [ClusterUnreachable("nobody answers"), ClusterUnauthorized("the token is old")])
def test_what_cannot_be_removed_keeps_the_record_and_can_be_repeated(service, ended, cluster, error):
    ended()
    cluster.error = error
    assert error.detail in is_problem(delete(service), 503)["detail"]
    assert service.client.get(f"/evals/{EVAL_ID}").status_code == 200
    assert "being deleted" in is_problem(service.client.post(URL, json={"api_key": KEY}), 409)["detail"]
    cluster.error = None
    assert delete(service).status_code == 204


def test_a_sidecar_that_is_away_keeps_the_record(service, ended):
    ended()
    service.workflows.away = True
    is_problem(delete(service), 503)
    assert service.created().evaluations == [EVAL_ID]


def test_files_on_a_mounted_claim_are_removed_without_a_job(serve, cluster, tmp_path):
    directory = tmp_path / "results" / EVAL_ID
    (directory / "run").mkdir(parents=True)
    (directory / "run" / "link").symlink_to(tmp_path)
    service = serve(orchestrator=cluster, results_mount=tmp_path)
    service.start(a_request())
    service.record.finish(EVAL_ID, WorkflowStatus.FAILED)
    assert delete(service).status_code == 204
    assert (directory.exists(), (tmp_path / "results").exists()) == (False, True)
    assert cluster.calls == [("cluster", EVAL_ID, 1)]


def test_an_id_of_another_spelling_is_the_same_evaluation(service, ended):
    ended()
    assert service.client.delete(f"/evals/{EVAL_ID.upper()}").status_code == 204


def test_a_problem_tells_of_no_secret(service, ended):
    ended()
    body = {"api_key": KEY, "kubeconfig": "canary: [", "resources": {"limits": {"cpu": "canary"}}}
    assert "canary" not in json.dumps(is_problem(service.client.post(URL, json=body), 422))
