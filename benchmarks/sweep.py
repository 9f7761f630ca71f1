"""What it costs to ask a cluster for the status of Jobs, and how long it takes to deploy them.

Reports CPU seconds of all processes of a playbook run (``RUSAGE_CHILDREN``), for a playbook that does nothing, for
budeval's sweep with 100 and with 1,000 Jobs, and for the guide's playbook as given, on the same API server in the same
run; then wall seconds of deploying 1 run and 20. Each figure is the least of several repetitions: what else the machine
does only ever adds. Needs the local stack (``make up``). Ends with 1 when a promise is not kept.

The Jobs have one pod each, which no node takes, so that 1,000 of them fit on any machine. The guide's playbook asks for
each Job in a task of its own, so it is run with a few Jobs and its figure for more is worked out from the cost of one.
"""

import argparse
import os
import resource
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import NamedTuple

import ansible_runner

from benchmarks.report import Report
from budeval.ansible.runner import PlaybookRunner
from budeval.evals.ansible_orchestrator import AnsibleOrchestrator
from budeval.jobs.manifest import build_evaluation
from budeval.jobs.models import EvaluationObjects, JobSpecInput
from budeval.jobs.overlay import PodTemplateOverlay
from tests.cluster import PAUSE_IMAGE, VOLUME_CLAIM, ServiceCluster, service_cluster, until

GUIDE_PLAYBOOK = Path(__file__).with_name("guide_check_job_status_k8s.yml")
GUIDE_OUTPUT = Path("/tmp/job_status_.json")  # noqa: S108 - where the guide's playbook writes, and its Python does not look
NO_OP = """
- name: Do nothing
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Answer
      ansible.builtin.set_stats:
        aggregate: false
        data: {budeval: {}}
"""
NOWHERE = PodTemplateOverlay.model_validate({"spec": {"nodeSelector": {"budeval.io/bench": "nowhere"}}})
PROMISES = {100: 2.0, 1000: 3.0}
"""At most so many times the CPU of the run that does nothing, by number of Jobs."""
DEPLOY_PROMISE = 2.0
"""Twenty runs take at most so many times as long as one."""


class Cost(NamedTuple):
    """The least of the repetitions, in seconds."""

    wall: float
    cpu: float


def measured(action: Callable[[], object], repeats: int) -> Cost:
    """What an action costs its child processes; a first, unmeasured one warms the caches of the disk."""
    action()
    walls, cpus = [], []
    for _ in range(repeats):
        began, cpu = time.monotonic(), children_cpu()
        action()
        walls.append(time.monotonic() - began)
        cpus.append(children_cpu() - cpu)
    return Cost(min(walls), min(cpus))


def children_cpu() -> float:
    """CPU seconds of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def objects(cluster: ServiceCluster, count: int) -> EvaluationObjects:
    """An evaluation of ``count`` runs."""
    eval_id = str(uuid.uuid4())
    runs = [
        JobSpecInput(
            eval_id=eval_id,
            run_id=f"run-{number}",
            engine_config={"schema": 1},
            image=PAUSE_IMAGE,
            namespace=cluster.namespace,
            volume_claim=VOLUME_CLAIM,
            has_api_key=False,
            overlay=NOWHERE,
        )
        for number in range(count)
    ]
    return build_evaluation(runs)


def make_jobs(cluster: ServiceCluster, count: int) -> list[str]:
    """Jobs of one evaluation, made without Ansible, and their pods."""
    made = objects(cluster, count)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(cluster.admin.made, made.jobs))
    return made.job_names


def has_pods(cluster: ServiceCluster, count: int) -> bool:
    """Whether the namespace has so many pods, by a LIST of one."""
    answer = cluster.admin.get("Pod", limit="1")
    return len(answer["items"]) + int(answer["metadata"].get("remainingItemCount", 0)) >= count


def run_guide(cluster: ServiceCluster, job_names: list[str]) -> None:
    """The guide's playbook with the variables that the guide's Python gives it."""
    with tempfile.TemporaryDirectory() as directory:
        done = ansible_runner.run(
            private_data_dir=directory,
            playbook=str(GUIDE_PLAYBOOK),
            inventory=f"localhost ansible_connection=local ansible_python_interpreter={sys.executable}",
            extravars={
                "kubeconfig_path": str(cluster.kubeconfig),
                "namespace": cluster.namespace,
                "job_names": ",".join(job_names),
            },
            envvars={"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"},
            quiet=True,
            cancel_callback=lambda: False,
        )
    GUIDE_OUTPUT.unlink(missing_ok=True)
    if done.rc != 0:
        raise SystemExit(f"the guide's playbook ended with {done.rc}")


def bench_sweeps(
    report: Report,
    cluster: ServiceCluster,
    orchestrator: AnsibleOrchestrator,
    runner: PlaybookRunner,
    args: argparse.Namespace,
) -> bool:
    """Reports the table of status checks; whether every promise is kept."""
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        file.write(NO_OP)
        file.flush()
        floor = measured(lambda: runner.run(file.name, {}, None, timeout_seconds=60), args.repeats)
    report.table("status check", "CPU-s", "wall s", "times a no-op")
    row = partial(_row, report, floor)
    row("an Ansible run that does nothing", floor)
    kept = True
    names: list[str] = []
    for count in sorted(PROMISES):
        names += make_jobs(cluster, count - len(names))
        until(partial(has_pods, cluster, count), timeout=300)
        cost = measured(partial(orchestrator.check_jobs_status, names), args.repeats)
        row(f"budeval, {count:,} Jobs and their pods", cost)
        kept = kept and cost.cpu <= PROMISES[count] * floor.cpu
    asked = names[: args.guide_jobs]
    guide = measured(lambda: run_guide(cluster, asked), 1)
    row(f"the guide's playbook, {len(asked)} Jobs", guide)
    for count in sorted(PROMISES):
        title = f"the guide's playbook, {count:,} Jobs (worked out from {len(asked)})"
        row(title, scaled(guide, floor, len(asked), count))
    return kept


def scaled(cost: Cost, floor: Cost, asked: int, wanted: int) -> Cost:
    """A cost that grows with the number of Jobs, for another number."""
    return Cost(*(least + (whole - least) / asked * wanted for whole, least in zip(cost, floor, strict=True)))


def _row(report: Report, floor: Cost, title: str, cost: Cost) -> None:
    report.row(title, f"{cost.cpu:.2f}", f"{cost.wall:.2f}", f"{cost.cpu / floor.cpu:.1f}")


def bench_deployments(report: Report, cluster: ServiceCluster, orchestrator: AnsibleOrchestrator, repeats: int) -> bool:
    """Reports the table of deployments; whether the promise is kept."""
    walls: dict[int, list[float]] = {count: [] for count in (1, 20)}
    for _ in range(repeats):
        for count, found in walls.items():
            wanted = objects(cluster, count)
            began = time.monotonic()
            orchestrator.deploy_eval_jobs(wanted)
            found.append(time.monotonic() - began)
            orchestrator.delete_eval_jobs(wanted.eval_id)
    one, twenty = (min(found) for found in walls.values())
    report.table("deployment", "wall s")
    report.row("1 run", f"{one:.2f}")
    report.row("20 runs", f"{twenty:.2f} ({twenty / one:.2f} times)")
    return twenty <= DEPLOY_PROMISE * one


def main(report: Report, args: argparse.Namespace) -> int:
    """Runs both benchmarks."""
    directory = Path(tempfile.mkdtemp(prefix="budeval-bench-"))
    try:
        with service_cluster() as cluster:
            settings = cluster.settings(directory, sweep_ttl=0)
            runner = PlaybookRunner(settings)
            orchestrator = AnsibleOrchestrator(settings, runner)
            deployed = bench_deployments(report, cluster, orchestrator, args.repeats)
            swept = bench_sweeps(report, cluster, orchestrator, runner, args)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return 0 if deployed and swept else 1
