"""Playbooks run against the real API server of the local stack, in a namespace of their own."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from budeval.ansible.runner import PlaybookRunner
from budeval.commons.settings import Settings
from budeval.evals.ansible_orchestrator import AnsibleOrchestrator
from tests.cluster import ServiceCluster, service_cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[ServiceCluster]:
    with service_cluster() as made:
        yield made


@pytest.fixture
def settings(cluster: ServiceCluster, tmp_path: Path) -> Iterator[Settings]:
    made = cluster.settings(tmp_path, sweep_ttl=0)
    yield made
    shutil.rmtree(made.playbook_run_dir, ignore_errors=True)


@pytest.fixture
def runner(settings: Settings) -> PlaybookRunner:
    return PlaybookRunner(settings)


@pytest.fixture
def orchestrator(settings: Settings, runner: PlaybookRunner) -> AnsibleOrchestrator:
    return AnsibleOrchestrator(settings, runner)
