import base64
import json

import pytest
from pydantic import SecretStr, ValidationError

from budeval.jobs.manifest import build_evaluation, build_job, build_reader_job
from budeval.jobs.models import JobSpecInput
from budeval.jobs.names import job_name
from budeval.jobs.overlay import PodTemplateOverlay

EVAL_ID = "444e4567-e89b-12d3-a456-426614174020"
KEY = SecretStr("sk-canary-0123456789")


def run(run_id="run-1", **changes):
    values = {
        "eval_id": EVAL_ID,
        "run_id": run_id,
        "engine_config": {"schema": 1, "run_id": run_id},
        "image": "localhost/engine:1",
        "namespace": "development",
        "volume_claim": "budeval-data",
        "has_api_key": True,
    }
    return JobSpecInput(**{**values, **changes})


def pod_spec(job):
    return job["spec"]["template"]["spec"]


def test_every_run_has_a_job_and_a_key_in_one_config_map():
    objects = build_evaluation([run("a"), run("b")], KEY)
    assert objects.job_names == [job_name(EVAL_ID, "a"), job_name(EVAL_ID, "b")]
    assert set(objects.config_map["data"]) == {f"{name}.json" for name in objects.job_names}


def test_the_key_is_in_the_secret_and_nowhere_else():
    objects = build_evaluation([run()], KEY)
    assert base64.b64decode(objects.secret["data"]["OPENAI_API_KEY"]).decode() == KEY.get_secret_value()
    assert KEY.get_secret_value() not in json.dumps([objects.config_map, *objects.jobs])
    assert KEY.get_secret_value() not in repr(objects)
    assert objects.secret["data"]["OPENAI_API_KEY"] not in repr(objects)


def test_without_a_key_there_is_no_secret_and_no_reference_to_one():
    objects = build_evaluation([run(has_api_key=False)])
    assert objects.secret is None
    assert "secretKeyRef" not in json.dumps(objects.jobs)


def test_the_same_input_gives_the_same_objects():
    assert build_evaluation([run()], KEY) == build_evaluation([run()], KEY)


def test_a_run_given_twice_is_refused():
    with pytest.raises(ValueError, match="same Job name"):
        build_evaluation([run("a"), run("a")])


def test_runs_of_two_evaluations_are_refused():
    with pytest.raises(ValueError, match="one evaluation"):
        build_evaluation([run("a"), run("b", eval_id=EVAL_ID.replace("4", "5"))])


def test_the_container_has_no_privileges():
    spec = pod_spec(build_job(run()))
    security = spec["containers"][0]["securityContext"]
    assert security == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False


def test_a_run_sees_its_own_results_and_reads_data_only():
    mounts = {mount["mountPath"]: mount for mount in pod_spec(build_job(run()))["containers"][0]["volumeMounts"]}
    assert mounts["/workspace"]["subPath"] == f"results/{EVAL_ID}/{job_name(EVAL_ID, 'run-1')}"
    assert mounts["/cache"]["readOnly"] is True
    assert mounts["/etc/budeval"]["readOnly"] is True


def test_a_permanent_failure_fails_the_job_and_a_disruption_costs_no_attempt():
    fail, ignore = build_job(run())["spec"]["podFailurePolicy"]["rules"]
    assert (fail["action"], fail["onExitCodes"]["values"]) == ("FailJob", [10])
    assert (ignore["action"], ignore["onPodConditions"][0]["type"]) == ("Ignore", "DisruptionTarget")


def test_a_hostile_run_id_stays_a_value():
    text = "x\n  hostNetwork: true\n{{ lookup('pipe', 'id') }}"
    job = build_job(run(text))
    assert job["metadata"]["annotations"]["budeval.io/run-id"] == text
    assert "hostNetwork" not in pod_spec(job)


def test_an_overlay_is_laid_over_the_pod_and_its_container():
    overlay = PodTemplateOverlay.model_validate(
        {
            "metadata": {"labels": {"team": "a", "budeval.io/eval-id": "other"}},
            "spec": {
                "hostNetwork": True,
                "nodeSelector": {"gpu": "no"},
                "tolerations": [{"key": "batch", "operator": "Exists"}],
                "imagePullSecrets": [{"name": "registry"}],
                "securityContext": {"runAsUser": 1000700000},
                "containers": [
                    {
                        "resources": {"limits": {"memory": "8Gi"}},
                        "env": [
                            {"name": "HTTPS_PROXY", "value": "http://127.0.0.1:3128"},
                            {"name": "HOME", "value": "/"},
                        ],
                    }
                ],
            },
        }
    )
    template = build_job(run(overlay=overlay))["spec"]["template"]
    spec, container = template["spec"], template["spec"]["containers"][0]
    assert (spec["hostNetwork"], spec["nodeSelector"]) == (True, {"gpu": "no"})
    assert spec["securityContext"]["runAsUser"] == 1000700000
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert container["resources"]["limits"] == {"memory": "8Gi"}
    assert container["resources"]["requests"]["cpu"] == "250m"
    env = {variable["name"]: variable for variable in container["env"]}
    assert env["HTTPS_PROXY"]["value"] == "http://127.0.0.1:3128"
    assert env["HOME"]["value"] == "/tmp"
    assert template["metadata"]["labels"]["team"] == "a"
    assert template["metadata"]["labels"]["budeval.io/eval-id"] == EVAL_ID


@pytest.mark.parametrize(
    "spec",
    [
        {"volumes": [{"name": "host", "hostPath": {"path": "/"}}]},
        {"hostPID": True},
        {"initContainers": [{"name": "x", "image": "y"}]},
        {"automountServiceAccountToken": True},
        {"securityContext": {"runAsUser": 0}},
        {"securityContext": {"runAsNonRoot": False}},
        {"containers": [{"name": "engine", "securityContext": {"privileged": True}}]},
        {"containers": [{"name": "engine", "image": "other"}]},
        {"containers": [{"name": "sidecar"}]},
        {"containers": [{"name": "engine", "volumeMounts": []}]},
        {"containers": [{"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "other", "key": "k"}}}]}]},
    ],
)
def test_an_overlay_cannot_weaken_what_keeps_a_run_apart(spec):
    with pytest.raises(ValidationError):
        PodTemplateOverlay.model_validate({"spec": spec})


def test_a_reader_sees_the_results_of_one_evaluation_read_only():
    job = build_reader_job(
        "budeval-reader-1",
        EVAL_ID,
        namespace="development",
        volume_claim="budeval-data",
        image="localhost/engine:1",
        image_pull_policy="IfNotPresent",
        command=["python3"],
        overlay=PodTemplateOverlay.model_validate(
            {"spec": {"hostNetwork": True, "containers": [{"resources": {"requests": {"cpu": "8"}}}]}}
        ),
        deadline_seconds=60,
    )
    container = pod_spec(job)["containers"][0]
    assert container["volumeMounts"] == [
        {"name": "data", "mountPath": "/results", "subPath": f"results/{EVAL_ID}", "readOnly": True}
    ]
    assert pod_spec(job)["hostNetwork"] is True
    assert container["resources"]["requests"]["cpu"] == "50m"
    assert "env" not in container or container["env"] == []
