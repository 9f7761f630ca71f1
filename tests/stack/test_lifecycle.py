"""The stack comes up, stays up, and goes away without a trace."""

import os
import signal
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import yaml

from tests.stack.second_stack import SecondStack, eventually

JOB = {
    "apiVersion": "batch/v1",
    "kind": "Job",
    "metadata": {"name": "writer", "namespace": "development"},
    "spec": {
        "backoffLimit": 0,
        "template": {
            "spec": {
                "restartPolicy": "Never",
                "hostNetwork": True,
                "automountServiceAccountToken": False,
                "securityContext": {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532, "runAsNonRoot": True},
                "containers": [
                    {
                        "name": "writer",
                        "image": "localhost/budeval-pause:0.1.0",
                        "imagePullPolicy": "Never",
                        "command": ["/busybox", "sh", "-c"],
                        "volumeMounts": [{"name": "data", "mountPath": "/data", "subPath": "results/one"}],
                        "securityContext": {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False},
                    }
                ],
                "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "budeval-data"}}],
            }
        },
    },
}


def run_job(stack: SecondStack, name: str, script: str) -> None:
    job = yaml.safe_load(yaml.safe_dump(JOB))
    job["metadata"]["name"] = name
    job["spec"]["template"]["spec"]["containers"][0]["args"] = [script]
    applied = stack.kubectl("apply", "-f", "-", stdin=yaml.safe_dump(job))
    assert applied.returncode == 0, applied.stderr


def traces(stack: SecondStack) -> dict[str, list[str]]:
    """Everything of a stack that the kernel still knows."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    ports = range(stack.port_base, stack.port_base + 700)
    return {
        "processes": [process.info["name"] for process in psutil.process_iter(["name", "cmdline"])
                      if any(str(stack.state) in word for word in process.info["cmdline"] or [])],
        "mounts": [row for row in mounts if str(stack.state) in row],
        "cgroups": [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/budeval-{stack.port_base}")],
        "ports": [str(found.laddr) for found in psutil.net_connections("tcp")
                  if found.status == psutil.CONN_LISTEN and found.laddr.port in ports],
        "sockets": [str(path) for path in stack.state.glob("*.sock*")],
        "log links": [str(path) for path in Path("/var/log/containers").glob("*.log")
                      if str(stack.state) in str(path.readlink())],
    }  # fmt: skip


NO_TRACES: dict[str, list[str]] = {
    "processes": [], "mounts": [], "cgroups": [], "ports": [], "sockets": [], "log links": [],
}  # fmt: skip


def network() -> str:
    links = subprocess.run(["ls", "/sys/class/net"], capture_output=True, text=True, check=True).stdout
    return links + Path("/proc/net/route").read_text()


def test_every_part_is_ready_after_up(second_stack: SecondStack) -> None:
    second_stack.up()

    assert {line["state"] for line in second_stack.started().values()} == {"ready"}
    assert set(second_stack.started()) >= {"redis", "placement", "dapr-scheduler", "etcd", "kube-apiserver", "kubelet"}


def test_every_part_listens_on_127_0_0_1_alone(second_stack: SecondStack) -> None:
    second_stack.up()
    pids = {line["pid"] for line in second_stack.started().values()}

    found = [connection for connection in psutil.net_connections("inet") if connection.pid in pids
             and (connection.status == psutil.CONN_LISTEN or connection.type == socket.SOCK_DGRAM)]  # fmt: skip

    assert len(found) > len(pids)
    assert {connection.laddr.ip for connection in found} == {"127.0.0.1"}


def test_up_again_is_quick_and_restarts_nothing(second_stack: SecondStack) -> None:
    second_stack.up()
    before = {name: line["pid"] for name, line in second_stack.started().items()}

    started = time.monotonic()
    second_stack.up()

    assert time.monotonic() - started < 5
    assert {name: line["pid"] for name, line in second_stack.started().items()} == before


def test_a_service_runs_on_unless_its_code_has_changed(second_stack: SecondStack) -> None:
    second_stack.up()

    def started() -> int:
        second_stack.dev("service", "start")
        return int(second_stack.status()["budeval"]["pid"])

    try:
        first = started()
        assert started() == first
        (second_stack.state / "service-source").write_text("of other code")
        assert started() != first
    finally:
        second_stack.dev("service", "stop")


@pytest.mark.parametrize("part", ["redis", "placement", "dapr-scheduler", "etcd", "kube-apiserver",
                                  "kube-controller-manager", "kube-scheduler", "containerd", "kubelet"])  # fmt: skip
def test_a_killed_part_comes_back_by_itself(second_stack: SecondStack, part: str) -> None:
    second_stack.up()
    pid = second_stack.status()[part]["pid"]

    os.kill(pid, signal.SIGKILL)

    def is_back() -> bool:
        line = second_stack.status()[part]
        return bool(line["state"] == "ready" and line["pid"] != pid)

    eventually(f"{part} is back", is_back)


def test_a_job_writes_to_the_claim_as_a_plain_user(second_stack: SecondStack) -> None:
    second_stack.up()

    run_job(second_stack, "writer", "id -u > /data/out && echo written")

    waited = second_stack.kubectl(
        "wait", "--for=condition=complete", "job/writer", "-n", "development", "--timeout=50s"
    )
    assert waited.returncode == 0, waited.stderr
    assert (second_stack.state / "data" / "results" / "one" / "out").read_text() == "65532\n"
    assert second_stack.kubectl("logs", "job/writer", "-n", "development").stdout == "written\n"


def test_down_leaves_nothing_behind_even_with_pods_running(doomed_stack: SecondStack) -> None:
    network_before = network()
    doomed_stack.up()
    run_job(doomed_stack, "sleeper", "echo started > /data/out; trap '' TERM; while true; do sleep 1; done")
    eventually("the pod runs", (doomed_stack.state / "data" / "results" / "one" / "out").exists)
    assert all(traces(doomed_stack).values())

    doomed_stack.dev("down")

    assert traces(doomed_stack) == NO_TRACES
    assert network() == network_before
    doomed_stack.up()
    assert {line["state"] for line in doomed_stack.started().values()} == {"ready"}
    assert doomed_stack.kubectl("get", "job", "sleeper", "-n", "development").returncode == 0


def test_up_and_down_cope_with_a_killed_supervisor(doomed_stack: SecondStack) -> None:
    def kill_supervisor() -> None:
        os.kill(int((doomed_stack.state / "supervisor" / "supervisord.pid").read_text()), signal.SIGKILL)

    doomed_stack.dev("up", "redis")
    kill_supervisor()

    doomed_stack.dev("up", "redis")
    assert doomed_stack.status()["redis"]["state"] == "ready"

    kill_supervisor()
    doomed_stack.dev("down")
    assert traces(doomed_stack) == NO_TRACES


def test_two_commands_at_once_do_one_after_the_other(doomed_stack: SecondStack) -> None:
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: doomed_stack.dev("up", "redis"), range(3)))

    assert doomed_stack.status()["redis"]["state"] == "ready"


def test_a_port_that_is_taken_is_named_as_the_reason(doomed_stack: SecondStack, second_stack: SecondStack) -> None:
    second_stack.up()
    thief = SecondStack(doomed_stack.state, second_stack.port_base)

    with pytest.raises(AssertionError, match="Another program already answers in the place of redis"):
        thief.dev("up", "redis")
