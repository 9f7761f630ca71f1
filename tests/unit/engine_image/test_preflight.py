"""The look before an evaluation: the program itself, in a process of its own, with no OpenCompass beside it."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from budeval_engine import preflight

from tests.engine.endpoint_double import EndpointDouble, answer, error
from tests.unit.engine_image.conftest import ENGINE

KEY = "sk-canary-of-a-look"


@pytest.fixture
def double() -> Iterator[EndpointDouble]:
    with EndpointDouble(lambda _: answer("A")).serving() as endpoint:
        yield endpoint


def look(root: Path, *, seconds: float = 20.0, **questions: Any) -> list[dict[str, Any]]:
    """What the program prints."""
    asked = json.dumps({"schema": 1, "seconds": seconds, **questions})
    environment = {
        "PATH": os.environ["PATH"], "PYTHONPATH": str(ENGINE), "HOME": str(root), "OPENAI_API_KEY": KEY,
        "COMPASS_DATA_CACHE": str(root),
    }  # fmt: skip
    command = [sys.executable, "-m", "budeval_engine.preflight", asked]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=40, check=False)
    assert done.returncode == 0, done.stderr
    assert KEY not in done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(line.pop("budeval") == "preflight" for line in lines)
    return lines


def subject(url: str) -> dict[str, str]:
    return {"model": "m", "endpoint": url}


def test_an_endpoint_that_answers_is_told(tmp_path: Path, double: EndpointDouble) -> None:
    told, last = look(tmp_path, endpoint=subject(double.url))
    assert (told["check"], told["reason"], last) == ("endpoint", None, {"ended": True})
    assert double.requests[0].headers["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    ("status", "reason"),
    [(401, "EndpointUnauthorized"), (404, "ModelNotFound"), (429, "EndpointRateLimited"), (400, "QuestionRefused")],
)
def test_an_endpoint_that_refuses_is_asked_once_and_quoted_without_the_key(
    tmp_path: Path, double: EndpointDouble, status: int, reason: str
) -> None:
    double.behave = lambda _: error(status, f"no: {KEY}")
    told = look(tmp_path, endpoint=subject(double.url))[0]
    assert (told["reason"], len(double.requests)) == (reason, 1)
    assert "no: ***" in told["message"]


def test_an_endpoint_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert look(tmp_path, endpoint=subject("http://127.0.0.1:9/v1"))[0]["reason"] == "EndpointUnreachable"


def test_the_time_ends_even_an_endpoint_that_never_does(tmp_path: Path, double: EndpointDouble) -> None:
    def wait(_: object) -> Any:
        time.sleep(5)
        return answer("A")

    double.behave = wait
    began = time.monotonic()
    told, last = look(tmp_path, seconds=2.5, endpoint=subject(double.url))
    assert (told["reason"], last) == ("EndpointUnreachable", {"ended": False})
    assert time.monotonic() - began < 5


def test_data_sets_whose_paths_are_all_there_are_present(tmp_path: Path) -> None:
    (tmp_path / "data" / "whole").mkdir(parents=True)
    (tmp_path / "data" / "whole" / "x.jsonl").write_text("{}")
    (tmp_path / "data" / "hollow").mkdir()
    (tmp_path / "data" / "nothing.jsonl").touch()
    inventory = {
        "whole": ["data/whole"],
        "file": ["data/whole/x.jsonl"],
        "half": ["data/whole", "data/other"],
        "hollow": ["data/hollow"],
        "empty": ["data/nothing.jsonl"],
        "nowhere": [],
    }
    assert preflight.present(inventory, tmp_path) == ["whole", "file"]
    assert look(tmp_path, inventory={"gone": ["data/gone"]}, datasets=["gone"]) == [{"present": []}, {"ended": True}]


def test_another_schema_is_told(tmp_path: Path) -> None:
    assert "schema" in look(tmp_path, schema=2)[0]["message"]
