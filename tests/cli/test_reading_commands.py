import csv
import io

import pytest

from tests.cli.conftest import ended
from tests.client.service import complete, fail, progress
from tests.client.test_calls import a_request
from tests.samples import EVAL_ID


@pytest.fixture
def completed(client, service):
    eval_id = client.start(a_request(model_name="a|model")).eval_id
    complete(service, eval_id)
    return eval_id


@pytest.fixture
def failed(client, service):
    eval_id = client.start(a_request()).eval_id
    fail(service, eval_id)
    return eval_id


def test_list_in_a_pipe_is_made_for_cut_and_grep(pipe, completed):
    header, row = pipe("list").out.splitlines()
    assert header.split("\t")[:3] == ["EVALUATION", "STATUS", "MODEL"]
    assert row.split("\t")[:5] == [completed, "COMPLETED", "a|model", "siqa_gen, piqa_gen", "2/2"]


def test_list_on_a_terminal_is_a_table_in_colour(terminal, completed):
    output, code = ended(terminal("list"))
    assert code == 0
    assert completed in output
    assert "\x1b[32mCOMPLETED\x1b[0m" in output


def test_colours_can_be_refused(terminal, completed):
    output, _ = ended(terminal("list", NO_COLOR="1"))
    assert "\x1b[32m" not in output


def test_list_can_be_filtered_and_limited(pipe, client, completed, failed):
    assert [item["eval_id"] for item in pipe("list", "--status", "failed", "--json").json()] == [failed]
    assert [item["eval_id"] for item in pipe("list", "-n", 1, "--json").json()] == [failed]
    assert pipe("list", "--after", "2100-01-01", "--json").json() == []


def test_list_ends_quietly_when_nobody_reads(start_in_pipe, client):
    for _ in range(3):
        client.start(a_request())
    process = start_in_pipe("list")
    process.stdout.close()
    assert process.wait(timeout=30) == 141
    assert process.stderr.read() == ""


@pytest.mark.parametrize("where", ["pipe", "terminal"])
def test_show_tells_the_reason_and_its_fix(request, where, failed):
    run = request.getfixturevalue(where)
    output = run("show", failed).out if where == "pipe" else ended(run("show", failed))[0]
    assert "EndpointUnauthorized: the endpoint refused the key" in output
    assert "What to do: Check api_key." in output


def test_show_has_the_timeline_if_wanted(pipe, failed):
    kinds = [entry["kind"] for entry in pipe("show", failed, "--timeline", "--json").json()["timeline"]]
    assert (kinds[0], kinds[-1]) == ("created", "end")
    assert "timeline" not in pipe("show", failed, "--json").json()
    assert "\tcreated\t" in pipe("show", failed, "-t").out


def test_show_says_how_far_a_running_evaluation_is(pipe, client, service):
    eval_id = client.start(a_request()).eval_id
    service.record.begin(eval_id)
    progress(service, eval_id, done=12)
    output = pipe("show", eval_id).out
    assert "RUNNING, about 7 min left" in output
    assert "\t12 of 48\t" in output


def test_a_locale_without_the_characters_still_shows_the_rest(pipe, completed):
    done = pipe("show", completed, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.code, "? Verifying Cluster Connection" in done.out) == (0, True)


def test_an_evaluation_that_is_not_there_is_wrong_usage(pipe):
    done = pipe("show", EVAL_ID)
    assert (done.code, done.out) == (2, "")
    assert EVAL_ID in done.err


def test_an_id_that_is_none_is_wrong_usage(pipe):
    assert pipe("show", "../../livez").code == 2


def test_results_come_as_a_table(pipe, completed):
    header, *rows = [line.split("\t") for line in pipe("results", completed).out.splitlines()]
    assert header == ["DATA SET", "VERSION", "METRIC", "MODE", "SCORE", "STATUS", "REASON"]
    assert rows[0] == ["siqa", "18632c", "accuracy", "gen", "35.42", "Succeeded", ""]


def test_results_come_as_csv(pipe, completed):
    rows = list(csv.DictReader(io.StringIO(pipe("results", completed, "--csv").out)))
    assert [(row["eval_id"], row["metric"], row["score"]) for row in rows] == [(completed, "accuracy", "35.42")] * 2


def test_results_come_as_markdown(pipe, completed):
    lines = pipe("results", completed, "--markdown").out.splitlines()
    assert lines[0] == "| data set | version | metric | mode | score | status | reason |"
    assert lines[1] == "| --- | --- | --- | --- | ---: | --- | --- |"
    assert lines[2] == "| siqa | 18632c | accuracy | gen | 35.42 | Succeeded |  |"


def test_results_come_as_json(pipe, completed):
    results = pipe("results", completed, "--json").json()
    assert results["results"][0]["scores"][0]["score"] == 35.42


def test_results_on_a_terminal_are_a_table(terminal, completed):
    output, code = ended(terminal("results", completed))
    assert code == 0
    assert "35.42" in output


def test_results_come_in_one_form_only(pipe, completed):
    assert pipe("results", completed, "--csv", "--json").code == 2


def test_a_run_without_scores_has_its_reason(pipe, failed):
    assert pipe("results", failed).out.splitlines()[1].endswith("\tFailed\tEndpointUnauthorized")


@pytest.mark.parametrize("where", ["pipe", "terminal"])
def test_data_sets_are_listed(request, where):
    run = request.getfixturevalue(where)
    output = run("datasets", "siqa").out if where == "pipe" else ended(run("datasets", "siqa"))[0]
    assert "siqa_gen" in output
    assert "ARC_c_gen" not in output


def test_data_sets_that_cannot_be_run_are_listed_on_demand(pipe):
    names = [item["dataset_id"] for item in pipe("datasets", "siqa", "--json").json()]
    every = [item["dataset_id"] for item in pipe("datasets", "siqa", "--all", "--json").json()]
    assert set(names) < set(every)


@pytest.mark.parametrize("where", ["pipe", "terminal"])
def test_engines_are_listed_with_their_parameters(request, where):
    run = request.getfixturevalue(where)
    output = run("engines").out if where == "pipe" else ended(run("engines"))[0]
    assert "opencompass" in output
    assert "query_per_second" in output


def test_engines_come_as_json(pipe):
    assert pipe("engines", "--json").json()[0]["name"] == "opencompass"


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (("show",), "asked for by"),
        (("datasets", "siqa", "-n", "3"), "siqa_gen"),
        (("engines",), "opencompass"),
        (("schema",), "datasets"),
        (("completion", "bash"), "budeval"),
        (("start", "-m", "a-model", "-e", "http://127.0.0.1:13200/v1", "-d", "siqa_gen"), "evaluation"),
    ],
)
def test_a_person_at_a_terminal_is_told_too(terminal, client, command, told):
    last = [client.start(a_request()).eval_id] if command == ("show",) else []
    output, code = ended(terminal(*command, *last))
    assert (code, told in output) == (0, True), output
