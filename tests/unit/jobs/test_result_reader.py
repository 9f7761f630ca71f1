import base64
import hashlib
import json
import os
import subprocess
import sys

import pytest

from budeval.jobs.reader import MAXIMUM_RESULT_BYTES, parse_log, reader_command

CONTENT = b'{"schema": 1}'


def line(name="run-a", content=CONTENT, **changes):
    told = {
        "run": name,
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "content_base64": base64.b64encode(content).decode(),
    }
    return json.dumps({**told, **changes})


def read(directory, names, budget=None):
    """What the reader's real program prints for a directory."""
    command = reader_command(names)
    place = command.index("/results")
    command[place] = str(directory)
    if budget is not None:
        command[place + 2] = str(budget)
    done = subprocess.run([sys.executable, *command[1:]], capture_output=True, text=True, timeout=30, check=True)
    return parse_log(done.stdout, names)


def put(directory, name, content):
    (directory / name).mkdir()
    (directory / name / "result.json").write_bytes(content)


def test_the_program_reads_each_result_to_the_byte(tmp_path):
    contents = {"run-a": CONTENT, "run-b": '{"ü": "实"}\r\n\x00'.encode()}
    for name, content in contents.items():
        put(tmp_path, name, content)
    results, deferred = read(tmp_path, list(contents))
    assert {name: result.content for name, result in results.items()} == contents
    assert deferred == []


def test_a_missing_result_is_an_error_of_that_run_alone(tmp_path):
    put(tmp_path, "run-a", CONTENT)
    results, _ = read(tmp_path, ["run-a", "run-b"])
    assert results["run-a"].content == CONTENT
    assert results["run-b"].error == "there is no result.json"


def test_links_and_pipes_are_not_followed(tmp_path):
    (tmp_path / "secret").write_text("secret")
    for name in ("run-a", "run-b"):
        (tmp_path / name).mkdir()
    (tmp_path / "run-a" / "result.json").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "run-b" / "result.json")
    results, _ = read(tmp_path, ["run-a", "run-b"])
    assert results["run-a"].content is None
    assert results["run-b"].error == "result.json is no regular file"


def test_a_link_instead_of_a_directory_is_not_followed(tmp_path):
    put(tmp_path, "elsewhere", CONTENT)
    (tmp_path / "run-a").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "run-b").symlink_to("/")
    results, _ = read(tmp_path, ["run-a", "run-b"])
    assert [results[name].content for name in ("run-a", "run-b")] == [None, None]
    assert "cannot be read" in results["run-a"].error


def test_a_result_over_the_limit_is_refused(tmp_path):
    put(tmp_path, "run-a", b"x" * (MAXIMUM_RESULT_BYTES + 1))
    results, _ = read(tmp_path, ["run-a"])
    assert "larger than" in results["run-a"].error


def test_what_does_not_fit_into_one_log_is_deferred(tmp_path):
    for name in ("run-a", "run-b", "run-c"):
        put(tmp_path, name, b"x" * 1000)
    results, deferred = read(tmp_path, ["run-a", "run-b", "run-c"], budget=3200)
    assert set(results) == {"run-a", "run-b"}
    assert deferred == ["run-c"]


@pytest.mark.parametrize("name", ["../x", "a/b", "", "A", "{{ x }}", "--help", "x\ny"])
def test_only_names_of_jobs_become_paths(name):
    with pytest.raises(ValueError, match="no name of a Job"):
        reader_command([name])


@pytest.mark.parametrize(
    ("log", "error"),
    [
        ("", "did not tell"),
        ("not json\n[1]\n{}\n", "did not tell"),
        (line(sha256="0" * 64), "damaged"),
        (line(size=1), "damaged"),
        (line(content_base64="@@@"), "cannot be decoded"),
        (line(content_base64=None), "cannot be decoded"),
        (line(name="other"), "did not tell"),
        ("[" * 100_000, "did not tell"),
    ],
)
def test_what_is_not_as_agreed_is_an_error(log, error):
    results, _ = parse_log(log, ["run-a"])
    assert results["run-a"].content is None
    assert error in results["run-a"].error
