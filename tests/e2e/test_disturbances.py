"""Real evaluations that are disturbed in their middle, and end as if nothing had been, or as they were asked to."""

import os
import signal
import time
from datetime import datetime

import pytest

from tests.cluster import until
from tests.e2e.system import MANY_QUESTIONS, PATIENCE_SECONDS, Evaluation, System, kubeconfig_of_nobody

OUTAGE_SECONDS = 60
CANCEL_SECONDS = 20
"""For what takes about three on an idle machine; the pod has ten to end by itself."""

pytestmark = pytest.mark.timeout(2 * PATIENCE_SECONDS)


@pytest.fixture(scope="module")
def without_a_cluster(system: System) -> Evaluation:
    """Started before the other tests: that its cluster does not answer is believed only after two minutes."""
    return system.evaluation(kubeconfig=kubeconfig_of_nobody(system.port_of_nobody)).start()


def test_a_cluster_that_is_away_for_a_minute_changes_nothing_but_the_time(
    system: System, without_a_cluster: Evaluation
) -> None:
    evaluation = system.evaluation(questions=16).start()
    until(lambda: evaluation.run()["status"] == "Running", PATIENCE_SECONDS, 0.5)
    system.stack.supervisor.stop("kube-apiserver")
    try:
        time.sleep(OUTAGE_SECONDS)
        assert evaluation.view()["status"] == "RUNNING"
    finally:
        system.stack.up(["api"])
    story = evaluation.story("COMPLETED")
    assert any("could not be asked" in message for message in story.progress)


def test_a_kill_of_service_and_sidecar_loses_nothing_and_repeats_nothing(system: System) -> None:
    evaluation = system.evaluation(questions=16).start()
    until(lambda: evaluation.run()["status"] == "Running", PATIENCE_SECONDS, 0.5)
    before = {name: system.pid(name) for name in ("budeval", "daprd")}
    for pid in before.values():
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    until(lambda: all(system.pid(name) not in (None, pid) for name, pid in before.items()), 60)
    system.wait_ready()
    assert evaluation.story("COMPLETED").events.count("results.COMPLETED") == 1


def test_a_cancelled_evaluation_is_gone_from_the_cluster_in_seconds(system: System) -> None:
    evaluation = system.evaluation(questions=MANY_QUESTIONS, api_key="sk-e2e-cancelled").start()
    evaluation.wait_answers()
    began = time.monotonic()
    evaluation.cancel()
    until(lambda: not any(evaluation.objects(kind) for kind in ("Job", "Secret", "ConfigMap", "Pod")), CANCEL_SECONDS)
    story = evaluation.story("TERMINATED", CANCEL_SECONDS)
    assert time.monotonic() - began < CANCEL_SECONDS
    assert story.failure is not None
    assert story.failure["error_category"] == "Cancelled"
    told = system.published(evaluation.eval_id)
    assert evaluation.cancel()["status"] == "TERMINATED"
    assert system.published(evaluation.eval_id) == told


def test_a_cluster_that_never_answers_fails_the_evaluation_in_words(without_a_cluster: Evaluation) -> None:
    story = without_a_cluster.story("FAILED")
    assert story.failure is not None
    assert story.failure["error_category"] == "ClusterUnreachable"
    assert "verify_cluster_connection.FAILED" in story.events
    (step,) = [step for step in without_a_cluster.view()["steps"] if step["id"] == "verify_cluster_connection"]
    assert "Connection refused" in step["message"]
    ended = datetime.fromisoformat(without_a_cluster.view()["ended_at"])
    assert (ended - datetime.fromisoformat(step["at"])).total_seconds() < CANCEL_SECONDS


def test_an_evaluation_is_cancelled_in_seconds_where_its_cluster_does_not_answer(system: System) -> None:
    evaluation = system.evaluation(kubeconfig=kubeconfig_of_nobody(system.port_of_nobody)).start()
    until(lambda: evaluation.steps()["verify_cluster_connection"] == "RUNNING", 20)
    evaluation.cancel()
    evaluation.story("TERMINATED", CANCEL_SECONDS)


def test_a_workflow_that_somebody_terminated_leaves_nothing_in_the_cluster(system: System) -> None:
    evaluation = system.evaluation(questions=MANY_QUESTIONS).start()
    evaluation.wait_answers()
    system.terminate_workflow(evaluation.eval_id)
    story = evaluation.story("TERMINATED")
    assert story.failure is not None
    assert story.failure["error_category"] == "WorkflowTerminated"
    until(lambda: not evaluation.objects("Job") and not evaluation.objects("Pod"), CANCEL_SECONDS)
    assert evaluation.objects("Secret") == evaluation.objects("ConfigMap") == []
