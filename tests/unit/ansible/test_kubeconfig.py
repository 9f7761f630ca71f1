import json

import pytest
import yaml

from budeval.ansible.kubeconfig import (
    MAXIMUM_LENGTH,
    InvalidKubeconfig,
    in_cluster_kubeconfig,
    parse_kubeconfig,
    secrets_of,
)


def kubeconfig(*, cluster=None, user=None, context=None, **changes):
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "mine",
        "contexts": [{"name": "mine", "context": context or {"cluster": "c", "user": "u", "namespace": "n"}}],
        "clusters": [{"name": "c", "cluster": {"server": "https://10.0.0.1:6443", **(cluster or {})}}],
        "users": [{"name": "u", "user": {"token": "canary-token"} if user is None else user}],
    }
    return {**document, **changes}


def json_with_tabs(document):
    return json.dumps(document, indent="\t")


@pytest.mark.parametrize("write", [json.dumps, json_with_tabs, yaml.safe_dump])
def test_the_current_context_is_taken_from_json_and_yaml(write):
    parsed = parse_kubeconfig(write(kubeconfig()))
    assert parsed["clusters"][0]["cluster"] == {"server": "https://10.0.0.1:6443"}
    assert parsed["users"][0]["user"] == {"token": "canary-token"}
    assert secrets_of(parsed) == ["canary-token"]


def test_other_contexts_are_left_behind():
    document = kubeconfig()
    document["clusters"].append({"name": "other", "cluster": {"server": "https://10.0.0.2"}})
    document["users"].append({"name": "other", "user": {"token": "other-token"}})
    assert "other" not in json.dumps(parse_kubeconfig(json.dumps(document)))


@pytest.mark.parametrize(
    ("part", "field", "value"),
    [
        ("user", "exec", {"command": "touch", "args": ["/tmp/x"]}),
        ("user", "auth-provider", {"name": "gcp", "config": {"cmd-path": "/bin/sh"}}),
        ("user", "tokenFile", "/etc/shadow"),
        ("user", "client-certificate", "/etc/shadow"),
        ("user", "client-key", "/etc/shadow"),
        ("user", "as", "system:admin"),
        ("cluster", "certificate-authority", "/etc/shadow"),
        ("cluster", "proxy-url", "http://10.0.0.3"),
        ("cluster", "x-unknown", "y"),
        ("cluster", "certificate-authority-data", {"a": 1}),
        ("cluster", "certificate-authority-data", "no base64!"),
        ("cluster", "insecure-skip-tls-verify", "false"),
        ("cluster", "insecure-skip-tls-verify", 1),
        ("cluster", "disable-compression", "true"),
        ("cluster", "tls-server-name", True),
        ("user", "password", "\ud800"),
        ("user", "token", True),
        ("user", "token", "two words"),
        ("user", "token", "canary-token\n"),
        ("user", "token", "t\u00f6ken"),
        ("user", "client-key-data", "LS0tLS1CRUdJTg"),
    ],
)
def test_what_runs_reads_or_is_not_known_is_refused_by_name(part, field, value):
    with pytest.raises(InvalidKubeconfig, match=field):
        parse_kubeconfig(json.dumps(kubeconfig(**{part: {field: value}})))


def test_a_command_in_another_context_is_refused_too():
    document = kubeconfig()
    document["users"].append({"name": "other", "user": {"exec": {"command": "id"}}})
    with pytest.raises(InvalidKubeconfig, match="exec"):
        parse_kubeconfig(json.dumps(document))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "mapping"),
        ("just text", "mapping"),
        ("[]", "mapping"),
        ("{", "neither JSON nor YAML"),
        ("a: 1\n---\nb: 2", "one document"),
        ("!!python/object/apply:os.system ['touch /tmp/x']", "tags"),
        ("!!int ''", "tags"),
        ("!!float ''", "tags"),
        ("!!bool maybe", "tags"),
        ("!!timestamp never", "tags"),
        ("a: 0001-01-01T00:00:00+23:59", "current-context"),
        ("a: 2001-02-30", "neither JSON nor YAML"),
        ("a: " + "9" * 5000, "neither JSON nor YAML"),
        ('{"a": ' + "9" * 5000 + "}", "neither JSON nor YAML"),
        ('{"a": ' + "[" * 50_000, "neither JSON nor YAML"),
        ("users: []\nusers: []", "'users' is given twice"),
        ('{"users": [{"name": "u", "user": {"exec": {}, "exec": ""}}]}', "'exec' is given twice"),
        ("users: [{user: {token: a, token: b}}]", "'token' is given twice"),
        ("a: &a [x, x]\nb: [*a, *a]", "aliases"),
        ("a: " + "[" * 5000, "neither JSON nor YAML"),
        ("x" * (MAXIMUM_LENGTH + 1), "longer than"),
        ("{\x00}", "neither JSON nor YAML"),
        (json.dumps(kubeconfig(kind="Secret")), "kind"),
        (json.dumps(kubeconfig(**{"current-context": None})), "current-context"),
        (json.dumps(kubeconfig(**{"current-context": "other"})), "contexts has no entry"),
        (json.dumps(kubeconfig(context={"cluster": "c"})), "context.user"),
        (json.dumps(kubeconfig(context={"cluster": "x", "user": "u"})), "clusters has no entry"),
        (json.dumps(kubeconfig(contexts="mine")), "contexts must be a list"),
        (json.dumps(kubeconfig(users=[{"name": "u", "user": None}])), "users"),
        (json.dumps(kubeconfig(cluster={"server": ""})), "server"),
        (json.dumps(kubeconfig(cluster={"server": "file:///etc/shadow"})), "http"),
        (json.dumps(kubeconfig(cluster={"server": "https://"})), "http"),
        (json.dumps(kubeconfig(cluster={"server": "https://[x"})), "http"),
        (json.dumps(kubeconfig(cluster={"server": "HTTPS://10.0.0.1"})), "http"),
        (json.dumps(kubeconfig(cluster={"server": "https://10.0.0.1/ x"})), "http"),
        (json.dumps(kubeconfig(cluster={"server": "https://10.0.0.1/\nx"})), "server must be a text of printable"),
        (json.dumps(kubeconfig(cluster={"server": "https://10.0.0.1/?x=y"})), "http"),
        (json.dumps(kubeconfig(cluster={"server": "https://@10.0.0.1"})), "credentials"),
        (json.dumps(kubeconfig(cluster={"server": "https://user:pass@10.0.0.1"})), "credentials"),
    ],
)
def test_what_is_no_usable_kubeconfig_is_refused_in_words(text, words):
    with pytest.raises(InvalidKubeconfig, match=words):
        parse_kubeconfig(text)


def test_truth_values_and_data_over_several_lines_are_taken():
    cluster = {"insecure-skip-tls-verify": False, "certificate-authority-data": "LS0t\nLS1C\nRUdJ\n"}
    document = kubeconfig(cluster=cluster, user={"username": "me", "password": "two words", "extensions": []})
    (parsed,) = parse_kubeconfig(yaml.safe_dump(document))["clusters"]
    assert parsed["cluster"] == {"server": "https://10.0.0.1:6443", **cluster}


def test_a_refusal_does_not_quote_secrets():
    text = "users: [{user: {token: canary-token, client-key-data: canary-key"
    with pytest.raises(InvalidKubeconfig) as caught:
        parse_kubeconfig(text)
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("host", "server"), [("10.0.0.1", "https://10.0.0.1:443"), ("fd00::1", "https://[fd00::1]:443")]
)
def test_a_pod_uses_its_service_account_by_reference(host, server):
    made = in_cluster_kubeconfig(host, "443", "/var/run/sa")
    assert made["clusters"][0]["cluster"]["server"] == server
    assert made["users"][0]["user"] == {"tokenFile": "/var/run/sa/token"}
