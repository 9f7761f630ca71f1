import re
from itertools import zip_longest
from pathlib import Path

import pytest
from pydantic import ValidationError

from budeval.commons.settings import MonitorSettings, Settings

OPERATING = Path(__file__).parents[3] / "docs" / "operating.md"


@pytest.fixture
def environment(monkeypatch):
    """Only the given variables, and none of the machine's."""
    import os

    for name in os.environ:
        if name.startswith(("BUDEVAL_", "DAPR_", "APP_API")):
            monkeypatch.delenv(name)
    return monkeypatch.setenv


NAMES = [
    ("BUDEVAL_HOST", "0.0.0.0", "host", "0.0.0.0"),  # noqa: S104
    ("BUDEVAL_PORT", "9000", "port", 9000),
    ("BUDEVAL_MAXIMUM_BODY_BYTES", "10", "maximum_body_bytes", 10),
    ("BUDEVAL_NAMESPACE", "evals", "namespace", "evals"),
    ("BUDEVAL_KUBECONFIG", "/etc/kubeconfig", "kubeconfig", Path("/etc/kubeconfig")),
    ("BUDEVAL_PVC_NAME", "claim", "pvc_name", "claim"),
    ("BUDEVAL_RESULTS_MOUNT", "/mnt", "results_mount", Path("/mnt")),
    ("BUDEVAL_ENGINE_IMAGE", "registry/image:1", "engine_image", "registry/image:1"),
    ("BUDEVAL_IMAGE_PULL_POLICY", "Always", "image_pull_policy", "Always"),
    ("BUDEVAL_JOB_TTL", "60", "job_ttl", 60),
    ("BUDEVAL_JOB_BACKOFF_LIMIT", "0", "job_backoff_limit", 0),
    ("BUDEVAL_PENDING_GRACE", "5", "pending_grace", 5),
    ("BUDEVAL_MAXIMUM_EVALUATIONS", "7", "maximum_evaluations", 7),
    ("BUDEVAL_MAXIMUM_EVALUATIONS", "none", "maximum_evaluations", None),
    ("BUDEVAL_MAXIMUM_EVALUATIONS_PER_REQUESTER", "7", "maximum_evaluations_per_requester", 7),
    ("BUDEVAL_MAXIMUM_JOBS", "none", "maximum_jobs", None),
    ("BUDEVAL_MAXIMUM_JOBS_PER_REQUESTER", "7", "maximum_jobs_per_requester", 7),
    ("BUDEVAL_MAXIMUM_WAITING", "7", "maximum_waiting", 7),
    ("BUDEVAL_MAXIMUM_WAITING_PER_REQUESTER", "7", "maximum_waiting_per_requester", 7),
    ("BUDEVAL_WHEN_FULL", "refuse", "when_full", "refuse"),
    ("BUDEVAL_DATABASE_URL", "sqlite:///x", "database_url", "sqlite:///x"),
    ("BUDEVAL_PUBSUB_NAME", "pubsub", "pubsub_name", "pubsub"),
    ("BUDEVAL_NOTIFICATION_FORMAT", "cloudevents", "notification_format", "cloudevents"),
    ("BUDEVAL_REQUEST_TOPIC", "requests", "request_topic", "requests"),
    ("BUDEVAL_PLAYBOOK_TIMEOUT", "1.5", "playbook_timeout", 1.5),
    ("BUDEVAL_SWEEP_TTL", "0", "sweep_ttl", 0.0),
    ("BUDEVAL_LOG_FORMAT", "console", "log_format", "console"),
    ("DAPR_HTTP_PORT", "13500", "dapr_http_port", 13500),
    ("DAPR_HTTP_ENDPOINT", "http://dapr:1", "dapr_http_endpoint", "http://dapr:1"),
]


@pytest.mark.parametrize(("variable", "text", "field", "value"), NAMES)
def test_each_setting_has_its_variable(environment, variable, text, field, value):
    environment(variable, text)
    assert getattr(Settings(), field) == value


@pytest.mark.parametrize(
    ("variable", "field"),
    [
        ("BUDEVAL_SEALING_KEYS", "sealing_keys"),
        ("APP_API_TOKEN", "app_api_token"),
        ("DAPR_API_TOKEN", "dapr_api_token"),
    ],
)
def test_secret_settings_do_not_show_themselves(environment, variable, field):
    environment(variable, "canary")
    settings = Settings()
    assert getattr(settings, field).get_secret_value() == "canary"
    assert "canary" not in repr(settings)


OPTIONAL = [
    "BUDEVAL_KUBECONFIG", "BUDEVAL_RESULTS_MOUNT", "BUDEVAL_POD_TEMPLATE_OVERLAY", "BUDEVAL_SEALING_KEYS",
    "BUDEVAL_SEALING_KEYS_FILE", "BUDEVAL_REQUEST_TOPIC", "APP_API_TOKEN", "DAPR_API_TOKEN", "DAPR_HTTP_ENDPOINT",
    "DAPR_HTTP_PORT",
]  # fmt: skip


@pytest.mark.parametrize("variable", OPTIONAL)
def test_an_empty_variable_means_unset(environment, variable):
    without = Settings()
    environment(variable, "")
    assert Settings() == without


BAD = [
    ("BUDEVAL_MAXIMUM_JOBS", "0"),
    ("BUDEVAL_MAXIMUM_WAITING", "many"),
    ("BUDEVAL_WHEN_FULL", "wait"),
    ("BUDEVAL_PORT", "many"),
    ("BUDEVAL_PORT", "0"),
    ("BUDEVAL_PORT", "65536"),
    ("BUDEVAL_NAMESPACE", "Not_A_Name"),
    ("BUDEVAL_NAMESPACE", "a" * 64),
    ("BUDEVAL_NAMESPACE", "a\n"),
    ("BUDEVAL_IMAGE_PULL_POLICY", "Sometimes"),
    ("BUDEVAL_JOB_BACKOFF_LIMIT", "11"),
    ("BUDEVAL_POLL_INTERVAL", "0"),
    ("BUDEVAL_MAX_CHECKS", "-1"),
    ("BUDEVAL_SWEEP_TTL", "61"),
    ("BUDEVAL_NOTIFICATION_FORMAT", "xml"),
    ("BUDEVAL_LOG_LEVEL", "LOUD"),
    ("BUDEVAL_WORKFLOW_WORKERS", "0"),
]


@pytest.mark.parametrize(("variable", "text"), BAD)
def test_a_bad_value_ends_the_start_and_names_the_setting(environment, variable, text):
    environment(variable, text)
    with pytest.raises(ValidationError, match=variable.removeprefix("BUDEVAL_").lower()):
        Settings()


def test_the_guides_values_are_the_defaults_of_the_monitor(environment):
    assert Settings().monitor == MonitorSettings(poll_interval=30, max_checks=240, progress_every=10)


def test_the_monitors_defaults_can_be_set(environment):
    for name, value in (("POLL_INTERVAL", "1"), ("MAX_CHECKS", "2"), ("PROGRESS_EVERY", "3")):
        environment(f"BUDEVAL_{name}", value)
    assert Settings().monitor == MonitorSettings(poll_interval=1, max_checks=2, progress_every=3)


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, "http://127.0.0.1:3500"),
        ({"DAPR_HTTP_PORT": "13500"}, "http://127.0.0.1:13500"),
        ({"DAPR_HTTP_ENDPOINT": "https://dapr:443/", "DAPR_HTTP_PORT": "13500"}, "https://dapr:443"),
    ],
)
def test_where_the_sidecar_answers(environment, variables, url):
    for name, value in variables.items():
        environment(name, value)
    assert Settings().dapr_http_url == url


TABLE = OPERATING.read_text(encoding="utf-8").split("\n## ")[1]
WORDS = {"BUDEVAL_SEALING_KEYS", "BUDEVAL_SEALING_KEYS_FILE", "BUDEVAL_OIDC_JWKS_URL", "BUDEVAL_OIDC_ROLES"}
"""Their defaults are told in words."""


def documented_defaults():
    """What stands in the table: variable to default."""
    table = {}
    for names, defaults in re.findall(r"^\| (`[A-Z].*?) \| (.*?) ?\|", TABLE, re.MULTILINE):
        variables, values = re.findall(r"`(\w+)`", names), re.findall(r"`(.*?)`", defaults)
        table |= dict(zip_longest(variables, values[: len(variables)], fillvalue=""))
    return table


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_every_setting_is_documented_with_its_default(name):
    field = Settings.model_fields[name]
    variable = field.validation_alias.choices[0] if field.validation_alias else f"BUDEVAL_{name.upper()}"
    table = documented_defaults()
    assert variable in table
    if variable in WORDS:
        return
    default = field.default
    shown = " ".join(default) if isinstance(default, tuple) else str(default)
    nothing = {"", "none"} if default is None else set()
    assert table[variable] in {shown, shown.removesuffix(".0")} | nothing
