"""A preflight against the real API server, node and engine image: each defect is made for real, and each is found."""

import json
import threading
import time

import pytest
import yaml

from budeval.ansible.runner import PlaybookRunner
from budeval.commons.errors import TemporaryError
from budeval.commons.sealing import EvaluationSecrets
from budeval.evals.ansible_orchestrator import AnsibleOrchestrator
from budeval.evals.inventory import InventoryKeeper
from budeval.evals.models import ModelInfo, Run
from budeval.evals.preflight import Preflight
from dev.datasets import install
from tests.cluster import until
from tests.e2e.leaks import ProcessWatch
from tests.engine.endpoint_double import PROBE, EndpointDouble, Reply, answer, error
from tests.playbooks.test_eval_playbooks import changed_kubeconfig, restricted, without
from tests.samples import an_evaluation

KEY = "sk-canary-of-a-preflight-5d1c"
ABSENT_IMAGE = "localhost/budeval-no-such-image:0"
GOOD = ("request", "cluster", "namespace", "permissions", "volume", "manifests", "scheduling", "image", "endpoint")


@pytest.fixture(scope="module")
def data(cluster):
    """One data set on the volume."""
    install(cluster.volume / "datasets", ["siqa"])


@pytest.fixture
def double():
    """An endpoint that answers."""
    with EndpointDouble(lambda _: answer("A")).serving() as endpoint:
        yield endpoint


@pytest.fixture(autouse=True)
def nothing_left(cluster, data):
    """Whatever came out: no Job, no pod and no Secret stays."""
    yield
    assert cluster.admin.names("Job") == []
    assert cluster.admin.names("Secret") == []
    until(lambda: cluster.admin.names("Pod") == [], 15)


@pytest.fixture
def validate(cluster, tmp_path, double):
    """Validates an evaluation of ``siqa_gen`` against the double, with some things changed."""

    def checked(*, kubeconfig=None, key=KEY, datasets=("siqa_gen",), endpoint=None, model="a-model", **settings):
        made = cluster.settings(tmp_path, **settings)
        runs = [Run(run_id=f"run-{number}", dataset_id=name) for number, name in enumerate(datasets)]
        subject = ModelInfo(model_name=model, endpoint=endpoint or double.url)
        evaluation = an_evaluation(model=subject, runs=runs, max_questions=24, has_api_key=bool(key))
        secrets = EvaluationSecrets.model_validate({"api_key": key, "kubeconfig": kubeconfig})
        found = Preflight(made, AnsibleOrchestrator(made, PlaybookRunner(made))).validate(evaluation, secrets)
        assert KEY not in found.model_dump_json()
        return {check.id: check for check in found.checks}

    return checked


def statuses(checks, status):
    return {name for name, check in checks.items() if check.status == status}


def overlay(tmp_path, **spec):
    path = tmp_path / "changed-overlay.yaml"
    path.write_text(yaml.safe_dump({"spec": {"hostNetwork": True, **spec}}))
    return path


def any_claim(role):
    for rule in role["rules"]:
        if "persistentvolumeclaims" in rule["resources"]:
            del rule["resourceNames"]


@pytest.fixture
def made(cluster):
    """Makes objects that are gone after the test."""
    objects = []

    def make(kind, name, **content):
        versions = {"StorageClass": "storage.k8s.io/v1"}
        document = {"apiVersion": versions.get(kind, "v1"), "kind": kind, "metadata": {"name": name}, **content}
        cluster.admin.made(document)
        objects.append((kind, name))

    yield make
    for kind, name in reversed(objects):
        cluster.admin.delete(kind, name)


# ---------------------------------------------------------------- nothing is wrong


def test_where_nothing_is_wrong_every_check_says_so(validate, double):
    checks = validate()
    assert {name: check.status for name, check in checks.items()} == dict.fromkeys([*GOOD, "dataset:siqa_gen"], "ok")
    assert checks["dataset:siqa_gen"].message == "24 of 1954 questions"
    (asked,) = double.requests
    assert (asked.text, asked.body["max_tokens"], asked.body["model"]) == (PROBE, 1, "a-model")
    assert asked.headers["authorization"] == f"Bearer {KEY}"


def test_a_model_without_a_key_is_asked_without_one(validate, double):
    assert validate(key="")["endpoint"].status == "ok"
    assert "authorization" not in double.requests[0].headers


def test_the_key_lies_in_a_secret_of_the_probe_and_nowhere_else(cluster, validate, double):
    seen = []

    def look(_):
        seen.extend(cluster.admin.get(kind) for kind in ("Job", "Pod", "Secret"))
        return answer("A")

    double.behave = look
    with ProcessWatch([KEY], "kubepods") as watch:
        assert validate()["endpoint"].status == "ok"
    jobs, pods, secrets = seen
    assert watch.found == set()
    assert KEY not in json.dumps([jobs, pods])
    (job,), (secret,) = jobs["items"], secrets["items"]
    assert [owner["uid"] for owner in secret["metadata"]["ownerReferences"]] == [job["metadata"]["uid"]]
    assert (job["spec"]["activeDeadlineSeconds"], job["spec"]["ttlSecondsAfterFinished"]) == (75, 60)


def test_hostile_names_are_only_ever_data(validate, double, tmp_path):
    model = "$(OPENAI_API_KEY) {{ lookup('pipe', 'touch " + str(tmp_path / "pwned") + "') }} '\"\\ 模型"
    assert validate(model=model)["endpoint"].status == "ok"
    assert double.requests[0].body["model"] == model
    assert not (tmp_path / "pwned").exists()


# ---------------------------------------------------------------- the cluster


def test_a_cluster_that_does_not_answer_is_told(cluster, validate):
    checks = validate(kubeconfig=changed_kubeconfig(cluster, server={"server": "https://127.0.0.1:1"}))
    assert statuses(checks, "failed") == {"cluster"}
    assert "refused" in checks["cluster"].message
    assert statuses(checks, "ok") == {"request"}


def test_credentials_that_are_not_known_are_told(cluster, validate):
    checks = validate(kubeconfig=changed_kubeconfig(cluster, user={"token": "not-a-token"}))
    assert statuses(checks, "failed") == {"cluster"}
    assert "401" in checks["cluster"].message


def test_each_missing_permission_is_named(cluster, validate):
    def change(role):
        for permission in ("create jobs", "get pods/log", "delete secrets"):
            without(permission)(role)

    checks = validate(kubeconfig=restricted(cluster, change))
    assert statuses(checks, "failed") == {"permissions"}
    for words in ("create jobs.batch", "get pods/log", "delete secrets"):
        assert words in checks["permissions"].message
    assert "identity.yaml" in checks["permissions"].resolution


def test_without_the_permission_for_dry_runs_of_pods_that_is_a_warning(cluster, validate):
    checks = validate(kubeconfig=restricted(cluster, without("create pods")))
    assert statuses(checks, "warning") == {"permissions", "manifests"}
    assert statuses(checks, "failed") == set()
    assert checks["endpoint"].status == "ok"


def test_without_the_permission_to_list_events_that_is_a_warning(cluster, validate):
    checks = validate(kubeconfig=restricted(cluster, without("list events")))
    assert statuses(checks, "warning") == {"permissions"}
    assert "list events" in checks["permissions"].message
    assert statuses(checks, "failed") == set()


def test_a_namespace_that_is_not_there_is_named(validate):
    checks = validate(namespace="no-such-place")
    assert "no-such-place does not exist" in checks["namespace"].message
    assert checks["namespace"].status == "failed"


def test_a_claim_that_is_not_there_is_named_and_the_rest_is_looked_at(cluster, validate):
    checks = validate(pvc_name="no-such-claim", kubeconfig=restricted(cluster, any_claim))
    assert statuses(checks, "failed") == {"volume"}
    assert "no-such-claim does not exist" in checks["volume"].message
    assert checks["dataset:siqa_gen"].status == "skipped"
    assert checks["image"].status == checks["endpoint"].status == "ok"


def test_a_claim_without_a_volume_is_named(cluster, validate, made):
    claim = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "9Ti"}}, "storageClassName": ""}
    made("PersistentVolumeClaim", "unbound", spec=claim)
    checks = validate(pvc_name="unbound", kubeconfig=restricted(cluster, any_claim))
    assert statuses(checks, "failed") == {"volume"}
    assert "unbound is Pending" in checks["volume"].message


def test_a_claim_that_waits_for_its_first_consumer_is_a_warning_and_stays_unbound(cluster, validate, made):
    name = f"{cluster.namespace}-waiting"
    made("StorageClass", name, provisioner="kubernetes.io/no-provisioner", volumeBindingMode="WaitForFirstConsumer")
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}, "storageClassName": name}
    made("PersistentVolumeClaim", "waiting", spec=claim)
    checks = validate(pvc_name="waiting", kubeconfig=restricted(cluster, any_claim))
    assert (statuses(checks, "failed"), statuses(checks, "warning")) == (set(), {"volume"})
    assert checks["endpoint"].status == "ok"


# ---------------------------------------------------------------- the objects


def test_a_quota_that_is_too_small_is_named(validate, made):
    made("ResourceQuota", "small", spec={"hard": {"requests.memory": "256Mi"}})
    time.sleep(1)
    checks = validate()
    assert statuses(checks, "failed") == {"manifests"}
    assert "exceeded quota: small" in checks["manifests"].message
    assert "ResourceQuota" in checks["manifests"].resolution


def test_a_quota_of_jobs_stops_the_probe_too(validate, made):
    made("ResourceQuota", "no-jobs", spec={"hard": {"count/jobs.batch": "0"}})
    time.sleep(1)
    checks = validate()
    assert statuses(checks, "failed") == {"manifests", "scheduling"}
    assert "exceeded quota: no-jobs" in checks["scheduling"].message


def test_a_limit_range_that_is_too_narrow_is_named(validate, made):
    made("LimitRange", "narrow", spec={"limits": [{"type": "Container", "max": {"memory": "1Gi"}}]})
    time.sleep(1)
    checks = validate()
    assert "maximum memory usage per Container is 1Gi" in checks["manifests"].message
    assert "LimitRange" in checks["manifests"].resolution
    assert checks["scheduling"].message.startswith("FailedCreate")
    assert "maximum memory usage per Container is 1Gi" in checks["scheduling"].message


def test_a_pod_security_level_that_forbids_the_overlay_is_named(cluster, validate):
    path = f"/api/v1/namespaces/{cluster.namespace}"
    before = cluster.admin.cluster.fetch(path)
    labels = {**before["metadata"]["labels"], "pod-security.kubernetes.io/enforce": "baseline"}
    try:
        cluster.admin.cluster.ask("PUT", path, {**before, "metadata": {**before["metadata"], "labels": labels}})
        checks = validate()
    finally:
        after = cluster.admin.cluster.fetch(path)
        labels = before["metadata"]["labels"]
        cluster.admin.cluster.ask("PUT", path, {**after, "metadata": {**after["metadata"], "labels": labels}})
    assert checks["manifests"].status == "failed"
    assert 'violates PodSecurity "baseline' in checks["manifests"].message
    assert "hostNetwork" in checks["manifests"].message
    assert "violates PodSecurity" in checks["scheduling"].message


def test_what_the_api_server_warns_of_is_told(validate, tmp_path):
    terms = [{"matchExpressions": [{"key": "x", "operator": "NotIn", "values": ["y"], "surprise": 1}]}]
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    checks = validate(pod_template_overlay=overlay(tmp_path, affinity=affinity))
    assert statuses(checks, "warning") == {"manifests"}
    assert statuses(checks, "failed") == set()
    assert "unknown field" in checks["manifests"].message
    assert "surprise" in checks["manifests"].message


def test_a_priority_class_that_is_not_there_is_named(validate, tmp_path):
    checks = validate(pod_template_overlay=overlay(tmp_path, priorityClassName="no-such-class"))
    assert checks["manifests"].status == "failed"
    assert "no-such-class" in checks["manifests"].message


# ---------------------------------------------------------------- the pod


def test_a_node_that_is_not_there_is_told_in_kubernetes_words(validate, tmp_path):
    checks = validate(pod_template_overlay=overlay(tmp_path, nodeSelector={"no-such": "node"}))
    assert statuses(checks, "failed") == {"scheduling"}
    assert checks["scheduling"].message.startswith("Unschedulable")
    assert checks["endpoint"].status == "skipped"


@pytest.mark.parametrize(
    ("policy", "reasons"),
    [("Never", ("ErrImageNeverPull",)), ("IfNotPresent", ("ErrImagePull", "ImagePullBackOff"))],
)
def test_an_image_that_cannot_be_had_is_told_in_kubernetes_words(validate, policy, reasons):
    began = time.monotonic()
    checks = validate(engine_image=ABSENT_IMAGE, image_pull_policy=policy)
    assert statuses(checks, "failed") == {"image"}
    assert any(reason in checks["image"].message for reason in reasons)
    assert ABSENT_IMAGE in checks["image"].message
    assert time.monotonic() - began < 45


def test_an_image_without_the_engine_is_told(validate):
    checks = validate(engine_image="localhost/budeval-pause:0.1.0")
    assert statuses(checks, "failed") == {"image"}
    assert "python" in checks["image"].message


# ---------------------------------------------------------------- data sets and endpoint


def test_files_that_are_missing_are_named_for_each_data_set(validate):
    checks = validate(datasets=("gsm8k_gen", "siqa_gen", "gsm8k_gen"))
    assert statuses(checks, "failed") == {"dataset:gsm8k_gen"}
    missing = checks["dataset:gsm8k_gen"]
    assert (missing.field, missing.message.split(":")[0]) == ("eval_datasets.0.dataset_id", "DatasetMissing")
    assert "gsm8k" in missing.message
    assert checks["dataset:siqa_gen"].status == "ok"


def test_an_endpoint_on_which_nobody_listens_is_told(validate):
    checks = validate(endpoint="http://127.0.0.1:9/v1")
    assert statuses(checks, "failed") == {"endpoint"}
    assert checks["endpoint"].message.startswith("EndpointUnreachable")
    assert checks["endpoint"].field == "eval_model_info.endpoint"


@pytest.mark.parametrize(
    ("reply", "status", "reason", "field"),
    [
        (error(401, f"Incorrect API key provided: {KEY}"), "failed", "EndpointUnauthorized", "api_key"),
        (error(403, KEY), "failed", "EndpointUnauthorized", "api_key"),
        (error(404, "The model `a-model` does not exist"), "failed", "ModelNotFound", "model_name"),
        (error(503, "overloaded"), "failed", "EndpointUnreachable", "endpoint"),
        (Reply(200, "<html>hello</html>"), "failed", "EndpointUnreachable", "endpoint"),
        (Reply(307, "", {"Location": "http://127.0.0.1:9/"}), "failed", "InvalidConfiguration", "endpoint"),
        (error(429, "slow down"), "warning", "EndpointRateLimited", "endpoint"),
        (error(400, "max_tokens must be at least 16"), "warning", "QuestionRefused", "endpoint"),
    ],
)
def test_an_endpoint_that_refuses_says_why(validate, double, reply, status, reason, field):
    double.behave = lambda _: reply
    checks = validate(datasets=("gsm8k_gen",))
    assert (checks["endpoint"].status, checks["endpoint"].message.split(":")[0]) == (status, reason)
    assert checks["endpoint"].field == f"eval_model_info.{field}"
    assert len(double.requests) == 1


def test_an_endpoint_that_never_answers_ends_in_time(validate, double):
    over = threading.Event()
    double.behave = lambda _: Reply(None if over.wait(60) else 200)
    began = time.monotonic()
    try:
        checks = validate()
    finally:
        over.set()
    assert checks["endpoint"].message.startswith("EndpointUnreachable")
    assert checks["dataset:siqa_gen"].status == "ok"
    assert time.monotonic() - began < 50


# ---------------------------------------------------------------- the inventory


def test_the_volume_tells_which_data_sets_are_there_and_how_many_questions_they_have(cluster, tmp_path):
    settings = cluster.settings(tmp_path)
    orchestrator = AnsibleOrchestrator(settings, PlaybookRunner(settings))
    broken = cluster.volume / "datasets" / "data" / "piqa"
    broken.mkdir()
    try:
        (broken / "dev.jsonl").write_text("this is no JSON")
        seen = InventoryKeeper(orchestrator, Preflight(settings, orchestrator), 0).refreshed()
    finally:
        (broken / "dev.jsonl").unlink()
        broken.rmdir()
    assert seen.questions["siqa_gen"] == 1954
    assert {"siqa_gen", "piqa_gen"} <= seen.present
    assert "gsm8k_gen" not in seen.present
    assert "piqa_gen" in seen.broken
    assert seen.checked_at is not None


def test_a_volume_that_cannot_be_looked_at_is_told(cluster, tmp_path):
    settings = cluster.settings(tmp_path, engine_image=ABSENT_IMAGE, image_pull_policy="Never")
    orchestrator = AnsibleOrchestrator(settings, PlaybookRunner(settings))
    with pytest.raises(TemporaryError, match="ErrImageNeverPull"):
        InventoryKeeper(orchestrator, Preflight(settings, orchestrator), 0).refreshed()
