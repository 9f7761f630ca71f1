import json

import pytest
from pydantic import SecretStr

from budeval.engines import ENGINES
from budeval.jobs.manifest import build_job
from budeval.jobs.overlay import PodTemplateOverlay
from budeval.jobs.probe import (
    Questions,
    Subject,
    build_probe,
    build_probe_secret,
    parse_report,
    trial_pod,
)
from tests.unit.jobs.test_job_manifest import run as run_input

KEY = "sk-canary-of-a-probe"
LARGEST_ARGUMENT = 128 * 1024
"""Bytes that Linux takes as one argument."""


def job(overlay=None, **changes):
    values = {
        "namespace": "development", "image": "engine:1", "image_pull_policy": "Never",
        "overlay": PodTemplateOverlay.model_validate(overlay or {}), "volume_claim": "budeval-data",
        "has_api_key": True,
    }  # fmt: skip
    questions = changes.pop("questions", Questions(endpoint=Subject(model="m", endpoint="http://h/v1")))
    return build_probe("budeval-probe-1", questions, **{**values, **changes})


def container(made):
    return made["spec"]["template"]["spec"]["containers"][0]


def test_a_probe_is_kept_apart_and_ends_by_itself():
    made = job()
    spec = made["spec"]["template"]["spec"]
    security = container(made)["securityContext"]
    assert (spec["securityContext"]["runAsNonRoot"], spec["automountServiceAccountToken"]) == (True, False)
    assert (security["readOnlyRootFilesystem"], security["capabilities"]) == (True, {"drop": ["ALL"]})
    assert made["spec"]["backoffLimit"] == 0
    assert made["spec"]["activeDeadlineSeconds"] + made["spec"]["ttlSecondsAfterFinished"] < 150


def test_a_probe_sees_the_data_and_may_not_change_it():
    assert {"name": "data", "mountPath": "/cache", "subPath": "datasets", "readOnly": True} in container(job())[
        "volumeMounts"
    ]
    without = job(volume_claim=None)
    assert [volume["name"] for volume in without["spec"]["template"]["spec"]["volumes"]] == ["tmp"]
    assert [mount["name"] for mount in container(without)["volumeMounts"]] == ["tmp"]


def test_the_key_is_only_ever_named():
    reference = {"name": "budeval-probe-1", "key": "OPENAI_API_KEY"}
    assert {"name": "OPENAI_API_KEY", "valueFrom": {"secretKeyRef": reference}} in container(job())["env"]
    assert [variable["name"] for variable in container(job(has_api_key=False))["env"]] == ["HOME"]
    assert KEY not in json.dumps(build_probe_secret("budeval-probe-1", "development", SecretStr(KEY)))


def test_the_overlay_is_laid_over_but_for_what_an_engine_needs():
    overlay = {"spec": {"nodeSelector": {"a": "b"}, "containers": [{"resources": {"requests": {"memory": "64Gi"}}}]}}
    made = job(overlay)
    assert made["spec"]["template"]["spec"]["nodeSelector"] == {"a": "b"}
    assert container(made)["resources"]["requests"]["memory"] == "128Mi"


def test_no_variable_is_put_into_an_argument():
    hostile = Subject(model="$(OPENAI_API_KEY) $$(HOME)", endpoint="http://h/v1")
    argument = Questions(endpoint=hostile).argument()
    assert "$" not in argument
    assert json.loads(argument)["endpoint"]["model"] == hostile.model


def test_an_inventory_of_all_that_engines_know_fits_into_an_argument():
    paths = {name: found for engine in ENGINES.values() for name, found in engine.data_paths().items()}
    assert len(paths) > 500
    argument = Questions(inventory=paths, datasets=list(paths)).argument()
    assert len(argument) < LARGEST_ARGUMENT


def test_the_pod_of_a_dry_run_is_the_one_the_job_makes():
    made = build_job(run_input())
    pod = trial_pod(made)
    assert (pod["kind"], pod["spec"]) == ("Pod", made["spec"]["template"]["spec"])
    assert pod["metadata"]["name"] == made["metadata"]["name"]
    assert pod["metadata"]["labels"] == made["spec"]["template"]["metadata"]["labels"]


@pytest.mark.parametrize(
    "line",
    [
        "",
        "noise",
        "[1]",
        '"x"',
        '{"budeval": "progress", "phase": "x"}',
        "[" * 100_000,
        '{"budeval": "preflight", "dataset": 5}',
        '{"budeval": "preflight", "present": [1]}',
        '{"budeval": "preflight", "present": "x"}',
    ],
)
def test_lines_that_are_not_as_agreed_say_nothing(line):
    report = parse_report(line)
    assert (report.present, report.endpoint, report.datasets, report.ended) == (None, None, {}, False)


@pytest.mark.parametrize("count", [True, -1, "5", None, 1.5])
def test_a_count_that_is_none_is_not_taken(count):
    report = parse_report(json.dumps({"budeval": "preflight", "dataset": "x", "questions": count}))
    assert report.datasets["x"].questions is None


def test_nothing_is_a_report_of_nothing():
    assert not parse_report(None).began
