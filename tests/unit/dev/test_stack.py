"""What cannot succeed ends before anything is built or changed."""

import dataclasses
import os

import pytest

from dev.errors import StackError
from dev.settings import Settings
from dev.stack import GROUPS, Stack


@pytest.fixture(autouse=True)
def nothing_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def install(*_: object) -> None:
        raise AssertionError("something is built")

    monkeypatch.setattr(Stack, "_install", install)


def test_somebody_else_than_root_gets_no_node(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)

    with pytest.raises(StackError, match=r"needs root.*KUBECONFIG"):
        Stack(settings).up(GROUPS)


def test_a_cluster_without_a_kubeconfig_is_not_used(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", "/nonsense")

    with pytest.raises(StackError, match="there is no file /nonsense"):
        Stack(dataclasses.replace(settings, use_existing_cluster=True)).up(GROUPS)


def test_the_local_cluster_is_not_set_up_as_one_of_ones_own(settings: Settings) -> None:
    with pytest.raises(StackError, match="Set KUBECONFIG"):
        Stack(settings).set_cluster_up()
