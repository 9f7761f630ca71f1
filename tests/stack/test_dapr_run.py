"""`dapr run --run-file ./app.yaml` starts the service, after `up` and with the file that `up` wrote."""

import http.client
import signal
import subprocess
from pathlib import Path
from typing import Any

import yaml

from dev.settings import DEFAULT_PORT_BASE
from tests.stack.second_stack import ROOT, SecondStack, eventually

SERVICE_PORT = 8099


def moved(stack: SecondStack, value: Any) -> Any:
    """The run file with the ports of this stack, and paths that hold from its folder."""
    if isinstance(value, dict):
        return {key: moved(stack, item) for key, item in value.items()}
    if isinstance(value, list):
        return [moved(stack, item) for item in value]
    if value == SERVICE_PORT:
        return stack.port_base + 99
    if isinstance(value, int) and value > DEFAULT_PORT_BASE:
        return value - DEFAULT_PORT_BASE + stack.port_base
    if isinstance(value, str) and value.startswith("127.0.0.1:"):
        return f"127.0.0.1:{int(value.split(':')[1]) - DEFAULT_PORT_BASE + stack.port_base}"
    return str(ROOT / value) if isinstance(value, str) and value.startswith(".") else value


def answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return 200 <= connection.getresponse().status < 300
    except OSError:
        return False
    finally:
        connection.close()


def run(stack: SecondStack, run_file: Path, log: Path) -> subprocess.Popen[bytes]:
    command = ["bash", "-c", f". {stack.state}/env && exec dapr run --run-file {run_file}"]
    with log.open("w") as output:
        return subprocess.Popen(command, cwd=ROOT, env=stack.environment, stdout=output, stderr=subprocess.STDOUT)


def test_the_service_is_alive_and_its_sidecar_connected(second_stack: SecondStack) -> None:
    second_stack.up()
    run_file, log = second_stack.state / "app.yaml", second_stack.state / "logs" / "dapr-run.log"
    run_file.write_text(yaml.safe_dump(moved(second_stack, yaml.safe_load((ROOT / "app.yaml").read_text()))))

    process = run(second_stack, run_file, log)
    try:
        eventually("the service is alive", lambda: answers(second_stack.port_base + 99, "/livez"))
        eventually("everything it needs is there", lambda: answers(second_stack.port_base + 99, "/readyz"))
    except AssertionError as error:
        raise AssertionError(f"{error}\n{log.read_text()[-4000:]}") from error
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    eventually("the service is gone", lambda: not answers(second_stack.port_base + 99, "/livez"))
