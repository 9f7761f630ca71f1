"""Reading a kubeconfig that came with a request: only what is inside the text, nothing that runs or reads."""

import base64
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import yaml

MAXIMUM_LENGTH = 64 * 1024
"""Characters. A kubeconfig with a certificate chain of one cluster has about 6,000."""


class _Kind(NamedTuple):
    """What a field must be."""

    words: str
    fits: Callable[[Any], bool]


def _is_base64(value: Any) -> bool:
    try:
        return isinstance(value, str) and base64.b64decode("".join(value.split()), validate=True) is not None
    except ValueError:
        return False


_TEXT = _Kind("a text of printable characters", lambda value: isinstance(value, str) and value.isprintable())
_BASE64 = _Kind("in base64", _is_base64)
# The Kubernetes client takes any text for true, "false" too.
_TRUTH = _Kind("true or false, without quotes", lambda value: isinstance(value, bool))
# It travels in an HTTP header.
_TOKEN = _Kind(
    "a text without spaces and line ends",
    lambda value: isinstance(value, str) and re.fullmatch(r"[\x21-\x7e]*", value) is not None,
)

_CLUSTER_FIELDS = {
    "server": _TEXT,
    "certificate-authority-data": _BASE64,
    "tls-server-name": _TEXT,
    "insecure-skip-tls-verify": _TRUTH,
    "disable-compression": _TRUTH,
}
_USER_FIELDS = {
    "token": _TOKEN,
    "client-certificate-data": _BASE64,
    "client-key-data": _BASE64,
    "username": _TEXT,
    "password": _TEXT,
}
_CONTEXT_FIELDS = {"cluster": _TEXT, "user": _TEXT, "namespace": _TEXT}
_IGNORED_FIELD = "extensions"
"""Notes of other tools; dropped, since nothing here needs them."""

_REASONS = {
    "exec": "runs a command",
    "auth-provider": "runs a command or asks another service",
    "certificate-authority": "names a file; use certificate-authority-data",
    "client-certificate": "names a file; use client-certificate-data",
    "client-key": "names a file; use client-key-data",
    "tokenFile": "names a file; use token",
    "proxy-url": "sends the cluster's traffic elsewhere",
}


class InvalidKubeconfig(ValueError):
    """A kubeconfig cannot be used; the message names the field."""


def parse_kubeconfig(text: str) -> dict[str, Any]:
    """The current context of a kubeconfig (JSON or YAML) as a kubeconfig with nothing else in it.

    Raises:
        InvalidKubeconfig: it is no kubeconfig, has no current context, would run a command or read a file.
    """
    document = _load(text)
    context = _named(document, "contexts", "context", _text(document, "current-context", "current-context"))
    cluster = _named(document, "clusters", "cluster", _text(context, "cluster", "context.cluster"))
    user = _named(document, "users", "user", _text(context, "user", "context.user"))
    _refuse_unknown_everywhere(document)
    _check_server(cluster)
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "budeval",
        "contexts": [{"name": "budeval", "context": {"cluster": "budeval", "user": "budeval"}}],
        "clusters": [{"name": "budeval", "cluster": _kept(cluster)}],
        "users": [{"name": "budeval", "user": _kept(user)}],
    }


def secrets_of(kubeconfig: dict[str, Any]) -> list[str]:
    """Every value of a parsed kubeconfig that must not be shown."""
    users = [entry["user"] for entry in kubeconfig["users"]]
    return [user[field] for user in users for field in ("token", "password", "client-key-data") if field in user]


def in_cluster_kubeconfig(host: str, port: str, service_account: str) -> dict[str, Any]:
    """A kubeconfig for the service account of the pod that the service runs in.

    Args:
        host: address of the API server (``KUBERNETES_SERVICE_HOST``).
        port: its port (``KUBERNETES_SERVICE_PORT``).
        service_account: directory with ``token`` and ``ca.crt``; the token is read anew by each run, as it expires.
    """
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    cluster = {"server": server, "certificate-authority": f"{service_account}/ca.crt"}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "in-cluster",
        "contexts": [{"name": "in-cluster", "context": {"cluster": "in-cluster", "user": "in-cluster"}}],
        "clusters": [{"name": "in-cluster", "cluster": cluster}],
        "users": [{"name": "in-cluster", "user": {"tokenFile": f"{service_account}/token"}}],
    }


class _PlainLoader(yaml.SafeLoader):
    """YAML that says no more than JSON can: a few aliases stand for gigabytes, and tags make values of other kinds."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, yaml.events.AliasEvent) or getattr(event, "tag", None) is not None:
            raise InvalidKubeconfig("kubeconfig: YAML aliases and tags are not taken")
        node = super().compose_node(parent, index)
        if isinstance(node, yaml.MappingNode):
            _refuse_repeated(key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode))
        return node


def _refuse_repeated(keys: Iterable[str]) -> None:
    # Which one counts differs from reader to reader.
    for key, count in Counter(keys).items():
        if count > 1:
            raise InvalidKubeconfig(f"kubeconfig: {_shown(key)} is given twice")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    _refuse_repeated(key for key, _ in pairs)
    return dict(pairs)


def _parse(text: str) -> Any:
    try:
        # Not all JSON is YAML: tabs between values, and characters written as two escapes.
        return json.loads(text, object_pairs_hook=_distinct)
    except json.JSONDecodeError:
        return yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - a SafeLoader that knows even less


def _load(text: str) -> dict[str, Any]:
    if len(text) > MAXIMUM_LENGTH:
        raise InvalidKubeconfig(f"kubeconfig: longer than {MAXIMUM_LENGTH} characters")
    try:
        document = _parse(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, InvalidKubeconfig):
            raise
        # The parser's message quotes the text, which has secrets in it.
        raise InvalidKubeconfig("kubeconfig: neither JSON nor YAML of one document") from None
    if not isinstance(document, dict):
        raise InvalidKubeconfig(f"kubeconfig: a mapping is needed, not {type(document).__name__}")
    if document.get("kind", "Config") != "Config":
        raise InvalidKubeconfig("kubeconfig: kind must be Config")
    return document


def _named(document: dict[str, Any], group: str, part: str, name: str) -> dict[str, Any]:
    for entry in _entries(document, group):
        if entry.get("name") == name:
            return _mapping(entry.get(part), f"{group}[{_shown(name)}].{part}")
    raise InvalidKubeconfig(f"kubeconfig: {group} has no entry named {_shown(name)}")


def _entries(document: dict[str, Any], group: str) -> list[dict[str, Any]]:
    entries = document.get(group)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidKubeconfig(f"kubeconfig: {group} must be a list of mappings")
    return entries


def _mapping(value: Any, field: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InvalidKubeconfig(f"kubeconfig: {field} must be a mapping")
    return value


def _text(mapping: dict[str, Any], key: str, field: str) -> str:
    value = mapping.get(key)
    if not isinstance(value, str) or not value:
        raise InvalidKubeconfig(f"kubeconfig: {field} is missing")
    return value


def _refuse_unknown_everywhere(document: dict[str, Any]) -> None:
    # Entries of other contexts are dropped; one that runs a command still shows a text that no service should be given.
    for group, part, known in (
        ("contexts", "context", _CONTEXT_FIELDS),
        ("clusters", "cluster", _CLUSTER_FIELDS),
        ("users", "user", _USER_FIELDS),
    ):
        for entry in _entries(document, group):
            where = f"{group}[{_shown(entry.get('name'))}]"
            _refuse_unknown(_mapping(entry.get(part), f"{group}.{part}"), known, where)


def _refuse_unknown(part: dict[str, Any], known: Mapping[str, _Kind], where: str) -> None:
    for field, value in part.items():
        if field == _IGNORED_FIELD:
            continue
        if field in _REASONS:
            raise InvalidKubeconfig(f"kubeconfig: {where}.{field} is refused: it {_REASONS[field]}")
        if field not in known:
            raise InvalidKubeconfig(f"kubeconfig: {where}.{_shown(field)} is not known")
        if not known[field].fits(value):
            raise InvalidKubeconfig(f"kubeconfig: {where}.{field} must be {known[field].words}")


def _check_server(cluster: dict[str, Any]) -> None:
    server = _text(cluster, "server", "cluster.server")
    try:
        address = urlsplit(server)
        usable = bool(address.hostname) and address.port != 0 and not (address.query or address.fragment)
    except ValueError:
        usable = False
    # The Kubernetes client knows no other spelling of the scheme.
    if not usable or not re.match("https?://", server) or " " in server:
        raise InvalidKubeconfig("kubeconfig: cluster.server must be an http(s) URL")
    if "@" in address.netloc:
        raise InvalidKubeconfig("kubeconfig: cluster.server must not carry credentials")


def _kept(part: dict[str, Any]) -> dict[str, Any]:
    return {field: value for field, value in part.items() if field != _IGNORED_FIELD}


def _shown(name: Any) -> str:
    return repr(str(name)[:60])
