"""Where the stack lives, and on which ports."""

import re
from pathlib import Path

import pytest

from dev.errors import StackError
from dev.settings import EPHEMERAL_RANGE_START, Ports, load_settings


def all_ports(ports: Ports) -> dict[str, int]:
    names = [name for name, value in vars(Ports).items() if isinstance(value, property)]
    return {name: getattr(ports, name) for name in names}


def test_the_ports_are_the_documented_ones() -> None:
    ports = load_settings({}).ports

    assert (ports.service, ports.daprd_http, ports.redis, ports.apiserver, ports.model) == (
        8099,
        13500,
        13637,
        13443,
        13200,
    )


def test_no_port_is_used_twice() -> None:
    ports = load_settings({}).ports

    assert len({ports.service, *all_ports(ports).values()}) == 1 + len(all_ports(ports))


@pytest.mark.parametrize("base", ["1024", "20000", "32068"])
def test_every_port_stays_below_the_ephemeral_range(base: str) -> None:
    ports = load_settings({"BUDEVAL_PORT_BASE": base}).ports

    assert all(1024 < port < EPHEMERAL_RANGE_START for port in all_ports(ports).values())


@pytest.mark.parametrize("base", ["80", "32069", "70000", "abc", "-1"])
def test_an_unusable_port_base_is_refused_by_name(base: str) -> None:
    with pytest.raises(StackError, match="BUDEVAL_PORT_BASE"):
        load_settings({"BUDEVAL_PORT_BASE": base})


def test_a_folder_too_deep_for_sockets_is_refused_with_a_way_out() -> None:
    with pytest.raises(StackError, match=r"Linux allows 107.*BUDEVAL_STATE_DIR"):
        load_settings({"BUDEVAL_STATE_DIR": "/" + "d" * 100})


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"KUBECONFIG": ""}, False),
        ({"KUBECONFIG": "/some/config"}, True),
        ({"BUDEVAL_CLUSTER": "existing"}, True),
        ({"BUDEVAL_CLUSTER": "local"}, False),
    ],
)
def test_an_existing_cluster_is_used_when_named(environment: dict[str, str], expected: bool) -> None:
    assert load_settings(environment).use_existing_cluster is expected


def test_the_stacks_own_kubeconfig_is_no_other_cluster(tmp_path: Path) -> None:
    """A shell that has read `.budeval/env` has it."""
    own = tmp_path / "kubernetes" / "admin.kubeconfig"
    environment = {"BUDEVAL_STATE_DIR": str(tmp_path), "KUBECONFIG": str(own)}

    assert not load_settings(environment).use_existing_cluster
    assert load_settings({**environment, "KUBECONFIG": f"{own}:/other"}).use_existing_cluster


def test_a_misspelt_cluster_is_refused() -> None:
    with pytest.raises(StackError, match="BUDEVAL_CLUSTER=exsting"):
        load_settings({"BUDEVAL_CLUSTER": "exsting"})


def test_every_variable_is_documented() -> None:
    root = load_settings({}).root
    read = set(re.findall(r'"((?:BUDEVAL_|KUBECONFIG)\w*)"', (root / "dev" / "settings.py").read_text()))
    documented = (root / "docs" / "operating.md").read_text()

    assert {"BUDEVAL_CLUSTER", "KUBECONFIG"} < read
    assert [name for name in read if f"`{name}`" not in documented] == []


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"BUDEVAL_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/budeval"),
        ({"HOME": "/c"}, "/c/.cache/budeval"),
    ],
)
def test_the_cache_follows_the_usual_variables(environment: dict[str, str], expected: str) -> None:
    assert load_settings(environment).cache == Path(expected)
