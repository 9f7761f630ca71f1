"""Every method of the orchestrator against the real API server, as the service's own identity."""

import base64
import json
import os
import secrets
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import quote

import pytest
from pydantic import SecretStr

from budeval.commons.errors import (
    ClusterNotReady,
    ClusterUnauthorized,
    ClusterUnreachable,
    DeploymentFailed,
    PlaybookCancelled,
)
from budeval.evals.ansible_orchestrator import AnsibleOrchestrator
from budeval.jobs.manifest import build_evaluation
from budeval.jobs.models import JobSpecInput, JobState, Resources
from budeval.jobs.names import job_name
from budeval.jobs.overlay import PodTemplateOverlay
from budeval.jobs.permissions import LIST_EVENTS, OPTIONAL_PERMISSIONS, REQUIRED_PERMISSIONS, Permission
from tests.cluster import ENGINE_IMAGE, PAUSE_IMAGE, VOLUME_CLAIM, identity_manifests, kubeconfig_text, until

KEY = SecretStr("sk-canary-0123456789")
HOSTILE = [
    "{{ lookup('pipe', 'touch MARK') }}",
    "{{ lookup('ansible.builtin.file', '/etc/passwd') }}",
    "x\n    hostNetwork: true\n    #",
    "{a: b}",
    "$(touch MARK)",
    "`touch MARK`; touch MARK",
    "../../../../etc/passwd",
    "naïve 実行 🙂",
    "'\"\\",
]


@pytest.fixture
def eval_id(orchestrator):
    """The id of an evaluation whose objects are removed after the test."""
    made = str(uuid.uuid4())
    yield made
    orchestrator.delete_eval_jobs(made)


def objects(cluster, eval_id, run_ids=("run-1",), key=KEY, **changes):
    values = {
        "engine_config": {"schema": 1},
        "image": PAUSE_IMAGE,
        "namespace": cluster.namespace,
        "volume_claim": VOLUME_CLAIM,
        "has_api_key": key is not None,
        "overlay": PodTemplateOverlay.model_validate({"spec": {"hostNetwork": True}}),
        "resources": Resources(requests={"cpu": "1m"}, limits={}),
    }
    runs = [JobSpecInput(eval_id=eval_id, run_id=run_id, **{**values, **changes}) for run_id in run_ids]
    return build_evaluation(runs, key)


def leftovers(cluster, eval_id):
    kinds = ("Job", "Secret", "ConfigMap")
    return [name for kind in kinds for name in cluster.admin.names(kind) if kind == "Job" or eval_id in name]


def restricted(cluster, change):
    """A kubeconfig of an identity with a changed Role."""
    name = f"limited-{secrets.token_hex(3)}"
    for document in identity_manifests(cluster.namespace):
        document["metadata"]["name"] = name
        if document["kind"] == "Role":
            change(document)
        if document["kind"] == "RoleBinding":
            document["roleRef"]["name"] = document["subjects"][0]["name"] = name
        cluster.admin.made(document)
    return kubeconfig_text(cluster.admin, name)


def without(permission):
    """A Role that lacks a verb on a resource."""
    verb, resource = permission.split()

    def change(role):
        for rule in role["rules"]:
            if resource in rule["resources"]:
                rule["verbs"] = [other for other in rule["verbs"] if other != verb]
        role["rules"] = [rule for rule in role["rules"] if rule["verbs"]]

    return change


def changed_kubeconfig(cluster, user=(), server=()):
    document = json.loads(cluster.kubeconfig.read_text())
    document["users"][0]["user"].update(user)
    document["clusters"][0]["cluster"].update(server)
    return json.dumps(document)


# ---------------------------------------------------------------- verify


def test_the_service_of_the_repository_can_run_evaluations(cluster, orchestrator):
    report = orchestrator.verify_cluster_connection()
    assert report.server_version.startswith("v1.")
    assert report.namespace == cluster.namespace


def test_every_permission_that_is_missing_is_named(cluster, orchestrator):
    def without_rules(role):
        role["rules"] = [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list", "patch", "delete"]}]

    with pytest.raises(ClusterNotReady) as caught:
        orchestrator.verify_cluster_connection(restricted(cluster, without_rules))
    held = {"get jobs.batch", "list jobs.batch", "patch jobs.batch", "delete jobs.batch"}
    for permission in map(str, REQUIRED_PERMISSIONS):
        assert (permission in caught.value.detail) == (permission not in held), permission


def test_the_role_of_the_repository_grants_what_evaluations_and_preflights_need_and_no_more(cluster):
    rules = next(d for d in identity_manifests(cluster.namespace) if d["kind"] == "Role")["rules"]
    granted = {
        Permission(group, resource.partition("/")[0], verb, resource.partition("/")[2])
        for rule in rules
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    assert {*REQUIRED_PERMISSIONS, *OPTIONAL_PERMISSIONS} == granted


def test_a_namespace_that_is_not_there_is_named(cluster, tmp_path, runner):
    orchestrator = AnsibleOrchestrator(cluster.settings(tmp_path, namespace="no-such-place"), runner)
    with pytest.raises(ClusterNotReady, match="no-such-place does not exist"):
        orchestrator.verify_cluster_connection()


def test_a_claim_that_is_not_there_is_named(cluster, tmp_path, runner):
    def any_claim(role):
        for rule in role["rules"]:
            if "persistentvolumeclaims" in rule["resources"]:
                del rule["resourceNames"]

    orchestrator = AnsibleOrchestrator(cluster.settings(tmp_path, pvc_name="no-such-claim"), runner)
    with pytest.raises(ClusterNotReady, match="no-such-claim does not exist"):
        orchestrator.verify_cluster_connection(restricted(cluster, any_claim))


def test_a_claim_that_the_role_does_not_name_is_named(cluster, tmp_path, runner):
    orchestrator = AnsibleOrchestrator(cluster.settings(tmp_path, pvc_name="other-claim"), runner)
    with pytest.raises(ClusterNotReady, match="get persistentvolumeclaims other-claim"):
        orchestrator.verify_cluster_connection()


def test_credentials_that_are_not_known_are_told(cluster, orchestrator):
    with pytest.raises(ClusterUnauthorized, match="401"):
        orchestrator.verify_cluster_connection(changed_kubeconfig(cluster, user={"token": "not-a-token"}))


def test_a_server_that_does_not_answer_is_told(cluster, orchestrator):
    with pytest.raises(ClusterUnreachable, match="refused"):
        orchestrator.verify_cluster_connection(changed_kubeconfig(cluster, server={"server": "https://127.0.0.1:1"}))


# ---------------------------------------------------------------- deploy and delete


def test_a_run_gets_its_job_and_the_job_owns_the_rest(cluster, orchestrator, eval_id):
    (deployed,) = orchestrator.deploy_eval_jobs(objects(cluster, eval_id))
    assert deployed.name == job_name(eval_id, "run-1")
    secret = cluster.admin.get("Secret", f"budeval-{eval_id}")
    config = cluster.admin.get("ConfigMap", f"budeval-{eval_id}")
    assert base64.b64decode(secret["data"]["OPENAI_API_KEY"]).decode() == KEY.get_secret_value()
    for owned in (secret, config):
        assert [owner["uid"] for owner in owned["metadata"]["ownerReferences"]] == [deployed.uid]
    until(lambda: orchestrator.check_jobs_status([deployed.name])[deployed.name].status is JobState.RUNNING)


def test_deploying_twice_changes_nothing(cluster, orchestrator, eval_id):
    wanted = objects(cluster, eval_id, ("run-1", "run-2"))

    def state():
        found = [cluster.admin.get(kind, f"budeval-{eval_id}") for kind in ("Secret", "ConfigMap")]
        jobs = [cluster.admin.get("Job", name) for name in wanted.job_names]
        return [item["metadata"]["resourceVersion"] for item in found], [
            (job["metadata"]["uid"], job["metadata"]["generation"], job["spec"]) for job in jobs
        ]

    first = orchestrator.deploy_eval_jobs(wanted)
    before = state()
    assert orchestrator.deploy_eval_jobs(wanted) == first
    assert state() == before


def test_secret_and_config_go_with_the_last_job(cluster, orchestrator, eval_id):
    jobs = orchestrator.deploy_eval_jobs(objects(cluster, eval_id, ("run-1", "run-2")))
    orchestrator.delete_eval_jobs(eval_id, job_names=[jobs[0].name])
    time.sleep(1)
    assert f"budeval-{eval_id}" in cluster.admin.names("Secret")
    cluster.admin.delete("Job", jobs[1].name)
    until(lambda: f"budeval-{eval_id}" not in cluster.admin.names("Secret") + cluster.admin.names("ConfigMap"))


def test_deleting_removes_everything_and_may_be_repeated(cluster, orchestrator, eval_id):
    names = [job.name for job in orchestrator.deploy_eval_jobs(objects(cluster, eval_id, ("run-1", "run-2")))]
    gone = orchestrator.delete_eval_jobs(eval_id)
    assert sorted(gone.jobs) == sorted(names)
    assert leftovers(cluster, eval_id) == []
    assert orchestrator.delete_eval_jobs(eval_id).jobs == []


def test_deleting_leaves_other_evaluations_alone(cluster, orchestrator, eval_id):
    (job,) = orchestrator.deploy_eval_jobs(objects(cluster, eval_id))
    orchestrator.delete_eval_jobs(str(uuid.uuid4()))
    assert job.name in cluster.admin.names("Job")


def test_one_job_that_cannot_be_made_undoes_all(cluster, orchestrator, eval_id):
    wanted = objects(cluster, eval_id, ("run-1", "run-2", "run-3"))
    wanted.jobs[2]["spec"]["backoffLimit"] = -1
    with pytest.raises(DeploymentFailed, match=r"spec\.backoffLimit.*must be greater than or equal to 0"):
        orchestrator.deploy_eval_jobs(wanted)
    assert leftovers(cluster, eval_id) == []


def test_a_quota_in_the_way_is_told_in_kubernetes_words(cluster, orchestrator, eval_id):
    quota = {"metadata": {"name": "few-jobs"}, "spec": {"hard": {"count/jobs.batch": "1"}}}
    cluster.admin.made({"apiVersion": "v1", "kind": "ResourceQuota", **quota})
    until(lambda: cluster.admin.get("ResourceQuota", "few-jobs").get("status", {}).get("hard"))
    try:
        with pytest.raises(DeploymentFailed, match="exceeded quota: few-jobs"):
            orchestrator.deploy_eval_jobs(objects(cluster, eval_id, ("run-1", "run-2")))
        assert leftovers(cluster, eval_id) == []
    finally:
        cluster.admin.delete("ResourceQuota", "few-jobs")


def test_a_deployment_that_is_cancelled_leaves_nothing(cluster, orchestrator, eval_id):
    cancelled = threading.Event()
    timer = threading.Timer(1.2, cancelled.set)
    timer.start()
    with pytest.raises(PlaybookCancelled):
        orchestrator.deploy_eval_jobs(
            objects(cluster, eval_id, [f"run-{n}" for n in range(30)]), cancelled=cancelled.is_set
        )
    assert leftovers(cluster, eval_id) == []


def test_the_kubeconfig_of_a_request_is_used_for_every_step(cluster, tmp_path, runner, eval_id):
    other = AnsibleOrchestrator(cluster.settings(tmp_path, kubeconfig=None, sweep_ttl=0), runner)
    text = cluster.kubeconfig.read_text()
    assert other.verify_cluster_connection(text).namespace == cluster.namespace
    (job,) = other.deploy_eval_jobs(objects(cluster, eval_id), text)
    assert other.check_jobs_status([job.name], text)[job.name].status is not JobState.MISSING
    refused = changed_kubeconfig(cluster, user={"token": "not-a-token"})
    with pytest.raises(ClusterUnauthorized):
        other.check_jobs_status([job.name], refused)
    with pytest.raises(ClusterUnauthorized):
        other.deploy_eval_jobs(objects(cluster, eval_id), refused)
    assert other.delete_eval_jobs(eval_id, text).jobs == [job.name]


def test_twenty_runs_take_at_most_twice_as_long_as_one(cluster, orchestrator):
    def seconds(count):
        eval_id = str(uuid.uuid4())
        began = time.monotonic()
        orchestrator.deploy_eval_jobs(
            objects(cluster, eval_id, [f"run-{n}" for n in range(count)], overlay=PodTemplateOverlay())
        )
        took = time.monotonic() - began
        orchestrator.delete_eval_jobs(eval_id)
        return took

    measured = [(seconds(1), seconds(20)) for _ in range(3)]
    assert min(twenty for _, twenty in measured) <= 2 * min(one for one, _ in measured), measured


@pytest.mark.parametrize("text", HOSTILE)
def test_a_hostile_text_in_every_field_arrives_to_the_letter(cluster, orchestrator, eval_id, tmp_path, text):
    text = text.replace("MARK", str(tmp_path / "mark"))
    config = {"schema": 1, "run_id": text, "model": {"name": text, "endpoint": text}, text: [text]}
    wanted = objects(cluster, eval_id, (text,), SecretStr(text), engine_config=config)
    (job,) = orchestrator.deploy_eval_jobs(wanted)
    made = cluster.admin.get("Job", job.name)
    assert made["metadata"]["annotations"]["budeval.io/run-id"] == text
    stored = cluster.admin.get("ConfigMap", f"budeval-{eval_id}")["data"][f"{job.name}.json"]
    assert json.loads(stored) == config
    key = cluster.admin.get("Secret", f"budeval-{eval_id}")["data"]["OPENAI_API_KEY"]
    assert base64.b64decode(key).decode() == text
    assert orchestrator.check_jobs_status([job.name])[job.name].name == job.name
    assert not (tmp_path / "mark").exists()


def test_the_manifests_are_valid_to_the_last_field(cluster, eval_id):
    overlay = PodTemplateOverlay.model_validate(
        {
            "metadata": {"annotations": {"a": "b"}},
            "spec": {
                "hostNetwork": True,
                "nodeSelector": {"a": "b"},
                "tolerations": [{"operator": "Exists"}],
                "imagePullSecrets": [{"name": "registry"}],
                "securityContext": {"runAsUser": 1000, "supplementalGroups": [1]},
                "containers": [{"resources": {"limits": {"memory": "1Gi"}}, "env": [{"name": "A", "value": "b"}]}],
            },
        }
    )
    made = objects(cluster, eval_id, ("run-1", "Run 2"), overlay=overlay)
    for each in [made.secret, made.config_map, *made.jobs]:
        status, answer = cluster.admin.create(each, dryRun="All", fieldValidation="Strict")
        assert status == 201, answer


# ---------------------------------------------------------------- status


def test_each_job_has_the_status_that_kubernetes_gives_it(cluster, orchestrator, eval_id):
    runs = {
        "running": {},
        "bad-image": {"image": "NOT:A:NAME"},
        "absent-image": {"image": "localhost/no-such-image:1", "image_pull_policy": "Never"},
        "late": {"active_deadline_seconds": 1, "image": "localhost/no-such-image:1", "image_pull_policy": "Never"},
        "suspended": {},
        "no-node": {"overlay": PodTemplateOverlay.model_validate({"spec": {"nodeSelector": {"no": "where"}}})},
    }
    jobs, ready = [], None
    for run_id, changes in runs.items():
        ready = objects(cluster, eval_id, (run_id,), **changes)
        jobs += ready.jobs
    jobs[4]["spec"]["suspend"] = True
    config = objects(cluster, eval_id, tuple(runs)).config_map
    orchestrator.deploy_eval_jobs(ready.model_copy(update={"jobs": jobs, "config_map": config}))
    names = {run_id: job_name(eval_id, run_id) for run_id in runs}

    def seen():
        found = orchestrator.check_jobs_status([*names.values(), "never-made"])
        by_run = {run_id: found[name] for run_id, name in names.items()} | {"never-made": found["never-made"]}
        told = {run_id: (status.status.value, status.reason, status.fatal) for run_id, status in by_run.items()}
        return told if told == expected else None

    expected = {
        "running": ("Running", None, False),
        "bad-image": ("Pending", "InvalidImageName", True),
        "absent-image": ("Pending", "ErrImageNeverPull", True),
        "late": ("Failed", "DeadlineExceeded", False),
        "suspended": ("Suspended", None, False),
        "no-node": ("Pending", "Unschedulable", False),
        "never-made": ("Missing", None, False),
    }
    until(seen, timeout=60)


@contextmanager
def in_the_way(cluster, kind, spec):
    """An object of the cluster's administrator that pods are judged by."""
    cluster.admin.made({"apiVersion": "v1", "kind": kind, "metadata": {"name": "in-the-way"}, "spec": spec})
    try:
        if kind == "ResourceQuota":
            until(lambda: cluster.admin.get(kind, "in-the-way").get("status", {}).get("hard"))
        yield
    finally:
        cluster.admin.delete(kind, "in-the-way")


def test_a_quota_without_room_for_a_pod_is_told_in_kubernetes_words_and_waited_for(cluster, tmp_path, runner, eval_id):
    orchestrator = AnsibleOrchestrator(cluster.settings(tmp_path, sweep_ttl=0, pending_grace=1), runner)

    def status():
        return orchestrator.check_jobs_status([job.name])[job.name]

    with in_the_way(cluster, "ResourceQuota", {"hard": {"pods": "0"}}):
        (job,) = orchestrator.deploy_eval_jobs(objects(cluster, eval_id))
        seen = until(lambda: (found := status()).message.count("exceeded quota: in-the-way") and found)
    assert (seen.status, seen.reason, seen.fatal) == (JobState.PENDING, "FailedCreate", False)
    assert f'pods "{job.name}" is forbidden' in seen.message
    assert "ResourceQuota" in seen.resolution
    until(lambda: status().status is JobState.RUNNING, timeout=60)


@pytest.mark.parametrize(("grace", "fatal"), [(1, True), (120, False)])
def test_a_limit_range_that_refuses_the_pod_is_told_at_once_and_fatal_after_the_grace(
    cluster, tmp_path, runner, eval_id, grace, fatal
):
    orchestrator = AnsibleOrchestrator(cluster.settings(tmp_path, sweep_ttl=0, pending_grace=grace), runner)
    large = Resources(requests={"cpu": "2"}, limits={"cpu": "2"})
    with in_the_way(cluster, "LimitRange", {"limits": [{"type": "Container", "max": {"cpu": "1"}}]}):
        (job,) = orchestrator.deploy_eval_jobs(objects(cluster, eval_id, resources=large))
        told = "maximum cpu usage per Container is 1"
        seen = until(lambda: told in (found := orchestrator.check_jobs_status([job.name])[job.name]).message and found)
    assert (seen.status, seen.reason, seen.fatal) == (JobState.PENDING, "FailedCreate", fatal)
    assert "LimitRange" in seen.resolution


def test_an_identity_that_may_not_list_events_runs_evaluations_and_says_less(cluster, orchestrator, eval_id):
    older = restricted(cluster, without(str(LIST_EVENTS)))
    assert orchestrator.verify_cluster_connection(older).namespace == cluster.namespace
    with in_the_way(cluster, "ResourceQuota", {"hard": {"pods": "0"}}):
        (job,) = orchestrator.deploy_eval_jobs(objects(cluster, eval_id), older)
        until(lambda: orchestrator.check_jobs_status([job.name])[job.name].reason == "FailedCreate")
        seen = orchestrator.check_jobs_status([job.name], older)[job.name]
    assert (seen.status, seen.reason, seen.message) == (JobState.PENDING, None, "")


def test_a_job_of_another_uid_is_missing(cluster, orchestrator, eval_id):
    (job,) = orchestrator.deploy_eval_jobs(objects(cluster, eval_id))
    assert orchestrator.check_jobs_status([job.name], uids={job.name: job.uid})[job.name].uid == job.uid
    other = orchestrator.check_jobs_status([job.name], uids={job.name: str(uuid.uuid4())})
    assert other[job.name].status is JobState.MISSING


def test_jobs_behind_the_first_page_are_seen(cluster, orchestrator):
    eval_id = str(uuid.uuid4())
    wanted = objects(cluster, eval_id, [f"run-{n}" for n in range(1100)], None)

    def make(job):
        cluster.admin.made({**job, "spec": {**job["spec"], "suspend": True}})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make, wanted.jobs))
    try:
        until(
            lambda: (
                {status.status for status in orchestrator.check_jobs_status(wanted.job_names).values()}
                == {JobState.SUSPENDED}
            )
        )
    finally:
        selector = quote(f"budeval.io/eval-id={eval_id}")
        path = f"{cluster.admin.path('Job')}?labelSelector={selector}&propagationPolicy=Background"
        cluster.admin.cluster.ask("DELETE", path)


def test_all_evaluations_share_one_sweep(cluster, tmp_path, runner, monkeypatch):
    asked = []
    run = runner.run
    monkeypatch.setattr(
        runner, "run", lambda playbook, *args, **kwargs: asked.append(playbook) or run(playbook, *args, **kwargs)
    )
    orchestrator = AnsibleOrchestrator(cluster.settings(tmp_path, sweep_ttl=30), runner)
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda _: orchestrator.check_jobs_status([]), range(100)))
    assert asked == ["check_job_status_k8s.yml"]


def test_a_job_is_only_missing_by_a_sweep_that_began_after_the_question(cluster, tmp_path, runner, eval_id):
    orchestrator = AnsibleOrchestrator(cluster.settings(tmp_path, sweep_ttl=60), runner)
    orchestrator.check_jobs_status([])
    (job,) = orchestrator.deploy_eval_jobs(objects(cluster, eval_id))
    assert orchestrator.check_jobs_status([job.name])[job.name].status is not JobState.MISSING


@pytest.mark.parametrize("change", [{"user": {"token": "no"}}, {"server": {"server": "https://127.0.0.1:1"}}])
def test_an_outage_is_an_error_and_never_an_empty_answer(cluster, orchestrator, change):
    with pytest.raises((ClusterUnreachable, ClusterUnauthorized)):
        orchestrator.check_jobs_status([], changed_kubeconfig(cluster, **change))


# ---------------------------------------------------------------- results


def test_results_come_from_the_volume_to_the_byte(cluster, orchestrator, eval_id):
    contents = {"run-a": b'{"schema": 1}', "run-b": os.urandom(700_000)}
    names = {run_id: job_name(eval_id, run_id) for run_id in (*contents, "run-c")}
    for run_id, content in contents.items():
        directory = cluster.volume / "results" / eval_id / names[run_id]
        directory.mkdir(parents=True)
        (directory / "result.json").write_bytes(content)
    results = orchestrator.read_results(eval_id, list(names.values()))
    assert {run_id: results[names[run_id]].content for run_id in contents} == contents
    assert results[names["run-c"]].error == "there is no result.json"
    assert not [name for name in cluster.admin.names("Job") if "reader" in name]


def test_more_results_than_one_log_holds_come_from_several_readers(cluster, orchestrator, eval_id):
    names = [job_name(eval_id, f"run-{number}") for number in range(9)]
    for name in names:
        directory = cluster.volume / "results" / eval_id / name
        directory.mkdir(parents=True)
        (directory / "result.json").write_bytes(os.urandom(1_000_000))
    results = orchestrator.read_results(eval_id, names)
    assert {name: len(result.content or b"") for name, result in results.items()} == dict.fromkeys(names, 1_000_000)


def test_the_engine_image_of_the_stack_is_the_readers(settings):
    assert settings.engine_image == ENGINE_IMAGE
