import json

import pytest

from tests.cli.conftest import ended
from tests.scripted_cluster import ScriptedCluster

FLAGS = ("-m", "small-model", "-e", "http://127.0.0.1:13200/v1", "-d", "siqa_gen", "--api-key-env", "OUR_KEY")
KEY = "sk-canary-of-a-key"
REFUSED = {"check": "endpoint", "reason": "EndpointUnauthorized", "message": f"Incorrect key {KEY}"}
FILE = "model: {name: small-model, endpoint: 'http://127.0.0.1:13200/v1'}\ndatasets: [siqa_gen]\nmax_questions: 24\n"


@pytest.fixture
def cluster():
    return ScriptedCluster()


@pytest.fixture
def service(serve, cluster, monkeypatch):
    """A service whose cluster is scripted."""
    monkeypatch.setattr("budeval.main.AnsibleOrchestrator", lambda *_: cluster)
    return serve(dataset_refresh=0)


def test_in_a_pipe_each_check_is_a_line(pipe, service):
    done = pipe("validate", *FLAGS)
    lines = [line.split("\t") for line in done.out.splitlines()]
    assert (done.code, done.err, lines[0]) == (0, "", ["CHECK", "STATUS", "MESSAGE"])
    assert {line[1] for line in lines[1:]} == {"ok"}
    assert ["Data set siqa_gen", "ok", "1954 questions"] in lines
    assert service.created().evaluations == []


def test_on_a_terminal_a_failure_comes_with_what_to_do(terminal, cluster):
    cluster.endpoint = REFUSED
    output, code = ended(terminal("validate", *FLAGS))
    assert code == 1
    assert "EndpointUnauthorized" in output
    assert "Model endpoint: Check api_key" in output
    assert KEY not in output


def test_a_failed_check_is_an_exit_code_of_its_own(pipe, cluster):
    cluster.missing = ["siqa_gen"]
    done = pipe("validate", *FLAGS)
    assert done.code == 1
    assert "eval_datasets.0.dataset_id: DatasetMissing" in done.out
    assert "Data set siqa_gen: Put the data set on the volume" in done.err


def test_json_has_all_checks(pipe, cluster):
    cluster.endpoint = REFUSED
    done = pipe("validate", *FLAGS, "--json")
    found = done.json()
    assert (done.code, found["ok"]) == (1, False)
    assert {check["id"]: check["status"] for check in found["checks"]}["endpoint"] == "failed"
    assert KEY not in done.out + done.err


def test_it_takes_the_options_and_the_file_of_start(pipe, cluster, tmp_path):
    (tmp_path / "evaluation.yaml").write_text(FILE)
    done = pipe("validate", "-f", tmp_path / "evaluation.yaml", "-n", 7)
    assert "7 of 1954 questions" in done.out
    options = [set(pipe(command, "--help").out.split()) for command in ("start", "validate")]
    wanted = {"--file", "--model", "--api-key-prompt", "--kubeconfig-file", "--parameter"}
    assert all(wanted <= found for found in options)


def test_a_data_set_that_does_not_exist_is_a_failed_check(pipe, cluster):
    done = pipe("validate", *FLAGS[:5], "siqa_genn")
    assert done.code == 1
    assert "did you mean siqa_gen" in done.out


@pytest.mark.parametrize("arguments", [("validate",), ("validate", "-d", "x"), ("validate", *FLAGS, "--watch")])
def test_wrong_usage_is_told(pipe, service, arguments):
    assert pipe(*arguments).code == 2


def test_a_service_that_is_away_is_told(pipe):
    assert pipe("--server", "http://127.0.0.1:9", "validate", *FLAGS).code == 3


def test_start_validates_first_if_wanted(pipe, service, cluster):
    done = pipe("start", *FLAGS, "--validate")
    assert (done.code, done.err) == (0, "")
    assert service.created().scheduled == [done.out.strip()]
    assert len(cluster.trials) == 1


@pytest.mark.parametrize("json_wanted", [False, True])
def test_a_start_that_could_not_run_starts_nothing_and_says_why(pipe, service, cluster, json_wanted):
    cluster.endpoint = REFUSED
    done = pipe("start", *FLAGS, "--validate", *(["--json"] if json_wanted else []))
    assert done.code == 1
    assert service.created().evaluations == []
    assert KEY not in done.out + done.err
    if json_wanted:
        told = json.loads(done.err)["error"]
        assert [error["field"] for error in told["problem"]["errors"]] == ["endpoint"]
    else:
        assert "EndpointUnauthorized" in done.out
        assert "nothing was started" in done.err


def test_data_sets_are_shown_with_what_lies_on_the_volume(pipe, service):
    before = pipe("datasets", "siqa_gen", "-n", 1).out.splitlines()[1].split("\t")
    assert before == ["siqa_gen", "opencompass", "gen", "yes", "yes", "?", "", "accuracy"]
    after = pipe("datasets", "--present", "--refresh").out.splitlines()
    assert [line.split("\t")[0] for line in after] == ["DATA SET", "siqa_gen"]
    assert after[1].split("\t")[5:7] == ["yes", "1954"]
