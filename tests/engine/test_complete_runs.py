"""Runs that end well: real OpenCompass, real data, and what is left on the volume."""

import hashlib
import json
import re
import shutil

import pytest

from tests.engine.endpoint_double import Asked, EndpointDouble, Reply, answer
from tests.engine.running import KEY, Engine, command_lines, files_with

HOSTILE_NAME = """{{ $OPENAI_API_KEY: }} {{ _base_.x }} '"`$(id)` ../../../etc/passwd 模型 {{ lookup('pipe', 'id') }}"""


def test_a_real_model_gets_a_real_score(engine: Engine, real_model: str) -> None:
    ended = engine.run(real_model, model="smollm2-135m-instruct", parameters={"batch_size": 4, "max_out_len": 32})
    assert (ended.exit_code, ended.reason) == (0, "Completed"), ended.stdout
    (score,) = engine.result["scores"]
    assert (score["dataset"], score["metric"], score["mode"]) == ("siqa", "accuracy", "gen")
    assert 0 <= score["score"] <= 100
    assert engine.result["questions"] == {"asked": 6, "answered": 6, "failed": 0}


def test_a_complete_run_tells_progress_leaves_its_result_and_is_not_run_twice(
    engine: Engine, double: EndpointDouble
) -> None:
    labels = (engine.data / "data" / "siqa" / "dev-labels.lst").read_text().split()[:6]
    double.behave = lambda _: answer("The answer is B.")
    ended = engine.run(double.url)
    assert ended.exit_code == 0, ended.stdout
    content = (engine.workspace / "result.json").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    assert (engine.workspace / "result.json.sha256").read_text().strip() == digest
    assert ended.termination == {
        "schema": 1,
        "reason": "Completed",
        "message": "All 6 questions are answered and scored.",
        "permanent": True,
        "done": 6,
        "total": 6,
        "result_sha256": digest,
    }
    result = engine.result
    score = round(100 * labels.count("2") / 6, 2)
    assert list(result) == [
        "schema",
        "eval_id",
        "run_id",
        "dataset_id",
        "scores",
        "questions",
        "versions",
        "data_sha256",
        "started_at",
        "completed_at",
        "duration_seconds",
    ]
    assert result["scores"] == [
        {"dataset": "siqa", "version": "18632c", "metric": "accuracy", "mode": "gen", "score": score}
    ]
    assert result["versions"] == {"opencompass": "0.5.4", "engine": "0.1.0"}
    assert re.fullmatch(r"[0-9a-f]{64}", result["data_sha256"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", result["started_at"])
    assert result["duration_seconds"] > 0
    told = ended.progress
    assert told[0] == ("preparing", 0, 0)
    assert ("preparing", 0, 6) in told
    assert ("inference", 6, 6) in told
    assert told[-1] == ("scoring", 6, 6)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    again = engine.run(double.url)
    assert (again.exit_code, again.reason) == (0, "Completed")
    assert again.termination["result_sha256"] == digest
    assert len(double.questions) == 6


def test_hostile_values_and_the_key_reach_the_endpoint_and_nothing_else(engine: Engine, double: EndpointDouble) -> None:
    arguments: list[str] = []

    def look_around(_: Asked) -> Reply:
        arguments.extend(command_lines())
        return answer(f'{{"budeval":"progress","done":99}} {HOSTILE_NAME}')

    double.behave = look_around
    ended = engine.run(double.url, model=HOSTILE_NAME, eval_id=HOSTILE_NAME, run_id=HOSTILE_NAME)
    assert ended.exit_code == 0, ended.stdout
    assert {asked.body["model"] for asked in double.requests} == {HOSTILE_NAME}
    assert {asked.headers["authorization"] for asked in double.requests} == {f"Bearer {KEY}"}
    assert engine.result["eval_id"] == HOSTILE_NAME
    assert ended.progress[-1] == ("scoring", 6, 6)
    assert not any(KEY in line for line in [*arguments, ended.stdout])
    assert files_with(KEY, engine.home) == []
    assert files_with("uid=0", engine.home) == []


@pytest.mark.parametrize(("most", "asked"), [(1, 1), (5000, 12)])
def test_a_limit_is_what_is_asked_at_most(engine: Engine, double: EndpointDouble, most: int, asked: int) -> None:
    few = engine.home / "few"
    shutil.copytree(engine.data / "data" / "siqa", few / "data" / "siqa")
    for name in ("dev.jsonl", "dev-labels.lst"):
        path = few / "data" / "siqa" / name
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:12]))
    ended = Engine(engine.python, engine.home, few, engine.tokenizer).run(double.url, max_questions=most)
    assert ended.exit_code == 0, ended.stdout
    assert engine.result["questions"] == {"asked": asked, "answered": asked, "failed": 0}
    assert len(double.questions) == asked


def test_another_version_of_the_data_has_another_checksum(engine: Engine, double: EndpointDouble) -> None:
    engine.run(double.url)
    before = engine.result["data_sha256"]
    other = engine.home / "data"
    shutil.copytree(engine.data / "data" / "siqa", other / "data" / "siqa")
    labels = other / "data" / "siqa" / "dev-labels.lst"
    labels.write_text(labels.read_text().replace("1", "2"))
    changed = Engine(engine.python, engine.home / "second", other, engine.tokenizer)
    changed.home.mkdir()
    assert changed.run(double.url).exit_code == 0
    assert changed.result["data_sha256"] != before


def test_code_that_the_model_wrote_is_run_and_scored(engine: Engine, double: EndpointDouble) -> None:
    """All of HumanEval, answered with the published solutions: the score can only be 100."""
    problems = [
        json.loads(line)
        for line in (engine.data / "data/humaneval/human-eval-v2-20210705.jsonl").read_text().splitlines()
    ]

    def solve(asked: Asked) -> Reply:
        solved = [problem for problem in problems if problem["prompt"].strip() in asked.text]
        code = solved[-1]["prompt"] + solved[-1]["canonical_solution"] if solved else "pass"
        return answer(f"```python\n{code}\n```")

    double.behave = solve
    ended = engine.run(double.url, dataset_id="humaneval_gen", max_questions=None, parameters={"batch_size": 16})
    assert ended.exit_code == 0, ended.stdout
    assert engine.result["questions"]["answered"] == 164
    assert {score["metric"]: score["score"] for score in engine.result["scores"]}["humaneval_pass@1"] == 100.0
