"""Later attempts and deletions against the real API server, as the service's own identity."""

import os
import uuid

import pytest
from pydantic import SecretStr

from budeval.commons.errors import TemporaryError
from budeval.evals.models import AskedResources
from budeval.jobs.manifest import build_evaluation
from budeval.jobs.models import JobSpecInput, JobState, Resources
from budeval.jobs.names import job_name, workspace_name
from budeval.jobs.overlay import PodTemplateOverlay
from tests.cluster import PAUSE_IMAGE, VOLUME_CLAIM, until

KEY = SecretStr("sk-canary-0123456789")
OVERLAY = PodTemplateOverlay.model_validate({"spec": {"hostNetwork": True}})


@pytest.fixture
def eval_id(orchestrator):
    """The id of an evaluation whose objects are removed after the test."""
    made = str(uuid.uuid4())
    yield made
    orchestrator.remove_evaluation(made, 3)


def objects(cluster, eval_id, attempt=1, run_ids=("run-1",), **changes):
    values = {
        "engine_config": {"schema": 1},
        "image": PAUSE_IMAGE,
        "namespace": cluster.namespace,
        "volume_claim": VOLUME_CLAIM,
        "has_api_key": True,
        "overlay": OVERLAY,
        "resources": Resources(requests={"cpu": "1m"}, limits={}),
    }
    runs = [
        JobSpecInput(eval_id=eval_id, run_id=run_id, attempt=attempt, **{**values, **changes}) for run_id in run_ids
    ]
    return build_evaluation(runs, KEY)


def present(cluster, eval_id):
    """What the evaluation has in the cluster, without what is being removed."""
    selector = f"budeval.io/eval-id={eval_id}"
    return {
        kind: sorted(item["metadata"]["name"] for item in cluster.admin.get(kind, labelSelector=selector)["items"])
        for kind in ("Job", "Secret", "ConfigMap", "Pod")
    }


def running(orchestrator, name):
    return until(lambda: orchestrator.check_jobs_status([name])[name].status is JobState.RUNNING)


def test_a_later_attempt_takes_the_place_of_the_first_and_owns_its_objects(cluster, orchestrator, eval_id):
    (first,) = orchestrator.deploy_eval_jobs(objects(cluster, eval_id))
    running(orchestrator, first.name)
    (second,) = orchestrator.deploy_eval_jobs(objects(cluster, eval_id, attempt=2))
    assert second.name == job_name(eval_id, "run-1", 2) != first.name
    running(orchestrator, second.name)
    found = present(cluster, eval_id)
    assert (found["Job"], found["Secret"], found["ConfigMap"]) == (
        [second.name],
        [f"budeval-{eval_id}-2"],
        [f"budeval-{eval_id}-2"],
    )
    assert len(found["Pod"]) == 1, "two pods would write into the same directory"
    for kind in ("Secret", "ConfigMap"):
        owners = cluster.admin.get(kind, f"budeval-{eval_id}-2")["metadata"]["ownerReferences"]
        assert [owner["uid"] for owner in owners] == [second.uid]


def test_every_attempt_works_in_the_directory_of_the_first(cluster, eval_id):
    paths = {
        mount["subPath"]
        for attempt in (1, 2, 3)
        for mount in objects(cluster, eval_id, attempt).jobs[0]["spec"]["template"]["spec"]["containers"][0][
            "volumeMounts"
        ]
        if mount["mountPath"] == "/workspace"
    }
    assert paths == {f"results/{eval_id}/{workspace_name(eval_id, 'run-1')}"}


def test_deploying_a_later_attempt_twice_keeps_its_jobs(cluster, orchestrator, eval_id):
    made = objects(cluster, eval_id, attempt=2, run_ids=("run-1", "run-2"))
    assert orchestrator.deploy_eval_jobs(made) == orchestrator.deploy_eval_jobs(made)


def test_an_older_attempt_that_comes_late_removes_nothing_of_a_newer_one(cluster, orchestrator, eval_id):
    (third,) = orchestrator.deploy_eval_jobs(objects(cluster, eval_id, attempt=3))
    orchestrator.deploy_eval_jobs(objects(cluster, eval_id, attempt=2))
    orchestrator.delete_eval_jobs(eval_id, attempt=2)
    orchestrator.delete_eval_jobs(eval_id)
    assert present(cluster, eval_id)["Job"] == [third.name]
    assert present(cluster, eval_id)["Secret"] == [f"budeval-{eval_id}-3"]


def test_the_api_server_takes_a_later_attempt_with_other_resources(cluster, eval_id):
    asked = AskedResources(requests={"cpu": "1500m"}, limits={"memory": "128Mi", "ephemeral-storage": "1Gi"})
    overlay = PodTemplateOverlay.model_validate(
        {"spec": {"containers": [{"resources": {"requests": {"memory": "512Mi"}, "limits": {"cpu": "1"}}}]}}
    )
    made = objects(cluster, eval_id, attempt=2, asked_resources=asked, overlay=overlay)
    for each in [made.secret, made.config_map, *made.jobs]:
        status, answer = cluster.admin.create(each, dryRun="All", fieldValidation="Strict")
        assert status == 201, answer
    resources = made.jobs[0]["spec"]["template"]["spec"]["containers"][0]["resources"]
    assert resources == {
        "requests": {"cpu": "1500m", "memory": "128Mi"},
        "limits": {"cpu": "1500m", "memory": "128Mi", "ephemeral-storage": "1Gi"},
    }


def test_deleting_an_evaluation_removes_all_attempts_and_waits_for_their_pods(cluster, orchestrator, eval_id):
    for attempt in (3, 2):
        orchestrator.deploy_eval_jobs(objects(cluster, eval_id, attempt))
    running(orchestrator, job_name(eval_id, "run-1", 2))
    orchestrator.remove_evaluation(eval_id, 3)
    found = present(cluster, eval_id)
    assert (found["Job"], found["Pod"], found["Secret"]) == ([], [], [])


# ---------------------------------------------------------------- files


def files_of(cluster, eval_id):
    """A working directory with files, and with links to a file that must stay."""
    keep = cluster.volume / "keep"
    keep.mkdir(exist_ok=True)
    (keep / "file").write_text("kept")
    directory = cluster.volume / "results" / eval_id
    (directory / "run-1" / "deep").mkdir(parents=True)
    (directory / "run-1" / "deep" / "answers.jsonl").write_text("{}\n")
    (directory / "run-1" / "link").symlink_to(keep)
    os.mkfifo(directory / "run-1" / "pipe")
    for path in (cluster.volume / "results", directory, directory / "run-1", directory / "run-1" / "deep"):
        path.chmod(0o777)
    return directory, keep / "file"


def test_files_of_an_evaluation_are_removed_from_the_volume_by_a_job(cluster, orchestrator, eval_id):
    directory, kept = files_of(cluster, eval_id)
    other, _ = files_of(cluster, str(uuid.uuid4()))
    orchestrator.remove_results(eval_id)
    assert not directory.exists()
    assert kept.read_text() == "kept"
    assert other.exists()
    orchestrator.remove_results(eval_id)
    assert not [name for name in cluster.admin.names("Job") if "remover" in name]


def test_files_that_a_running_engine_made_are_removed_too(cluster, orchestrator, eval_id):
    (job,) = orchestrator.deploy_eval_jobs(objects(cluster, eval_id))
    running(orchestrator, job.name)
    directory = cluster.volume / "results" / eval_id
    assert directory.exists()
    orchestrator.remove_evaluation(eval_id, 1)
    orchestrator.remove_results(eval_id)
    assert not directory.exists()


def test_a_link_in_place_of_a_directory_is_removed_and_not_followed(cluster, orchestrator, eval_id):
    directory, kept = files_of(cluster, str(uuid.uuid4()))
    (cluster.volume / "results" / eval_id).symlink_to(directory)
    orchestrator.remove_results(eval_id)
    assert not (cluster.volume / "results" / eval_id).is_symlink()
    assert directory.exists()
    assert kept.exists()


def test_files_that_may_not_be_removed_are_told(cluster, orchestrator, eval_id):
    directory, _ = files_of(cluster, eval_id)
    (directory / "run-1").chmod(0o755)
    with pytest.raises(TemporaryError, match="Permission denied"):
        orchestrator.remove_results(eval_id)


@pytest.mark.parametrize("name", ["", ".", "..", "../datasets", "{{ 1 }}", "$(id)", "A" * 36, "x\n"])
def test_a_name_that_is_no_id_reaches_no_cluster(orchestrator, name):
    with pytest.raises(ValueError, match="no eval_id"):
        orchestrator.remove_results(name)
