"""What is refused: each with its field named, and nothing created."""

import json

import pytest
import yaml

from budeval.api.schemas import EvalModelInfo
from tests.api.conftest import MAXIMUM_BODY_BYTES
from tests.api.test_start import is_problem
from tests.samples import API_KEY, EVAL_ID, KUBECONFIG, TOKEN, a_request

RUN = {"dataset_id": "siqa_gen", "run_id": "run-a"}
LONG = "x" * 257


def run(**changes):
    return [{**RUN, **changes}]


def config(name, value):
    return [{"config_name": name, "config_value": value}]


def without(key):
    request = a_request()
    del request[key]
    return request


def kubeconfig(**changes):
    """A kubeconfig in which ``user`` or ``cluster`` has more or other fields."""
    document = yaml.safe_load(KUBECONFIG)
    document["users"][0]["user"].update(changes.get("user", {}))
    document["clusters"][0]["cluster"].update(changes.get("cluster", {}))
    return json.dumps(document)


def refused(service, body):
    """The problems of a refusal, by field."""
    problem = is_problem(service.start(body), 422)
    assert problem["errors"]
    return {error["field"]: error for error in problem["errors"]}


NO_UUIDS = [
    "", "1", "test-monitor-pattern-001", EVAL_ID[:-1], EVAL_ID + "0", f"{{{EVAL_ID}}}", f"urn:uuid:{EVAL_ID}",
    EVAL_ID.replace("-", ""), f" {EVAL_ID}", f"{EVAL_ID}\n", "../" + EVAL_ID, 1, [EVAL_ID], {}, True,
]  # fmt: skip
IDS = [("eval_id", None), *((field, value) for field in ("eval_id", "experiment_id") for value in NO_UUIDS)]


@pytest.mark.parametrize(("field", "value"), IDS)
def test_an_id_that_is_no_uuid(refusing, field, value):
    assert "must be a UUID" in refused(refusing, a_request(**{field: value}))[field]["message"]


@pytest.mark.parametrize("key", ["eval_id", "eval_model_info", "eval_datasets", "source", "source_topic"])
def test_a_required_key_that_is_missing(refusing, key):
    assert key in refused(refusing, without(key))


UNKNOWN_KEYS = [
    ("surprise", {"surprise": 1}),
    ("eval_model_info.surprise", {"eval_model_info__surprise": 1}),
    ("eval_datasets.0.surprise", {"eval_datasets": run(surprise=1)}),
    ("eval_configs.0.surprise", {"eval_configs": [{"config_name": "max_checks", "config_value": 1, "surprise": 1}]}),
    ("notification_metadata.surprise", {"notification_metadata": {"surprise": 1}}),
]


@pytest.mark.parametrize(("field", "changes"), UNKNOWN_KEYS)
def test_an_unknown_key(refusing, field, changes):
    assert field in refused(refusing, a_request(**changes))


RUNS = [
    ("eval_datasets", []),
    ("eval_datasets", None),
    ("eval_datasets", "siqa_gen"),
    ("eval_datasets", [{"dataset_id": "siqa_gen", "run_id": f"run-{number}"} for number in range(201)]),
    ("eval_datasets.0.run_id", run(run_id="")),
    ("eval_datasets.0.run_id", run(run_id=1)),
    ("eval_datasets.0.run_id", run(run_id=LONG)),
    ("eval_datasets.0.dataset_id", run(dataset_id="")),
    ("eval_datasets.0.dataset_id", run(dataset_id=LONG)),
]


@pytest.mark.parametrize(("field", "runs"), RUNS)
def test_runs_that_are_none_or_no_runs(refusing, field, runs):
    assert field in refused(refusing, a_request(eval_datasets=runs))


def test_a_run_id_that_is_given_twice_is_named(refusing):
    problems = refused(refusing, a_request(eval_datasets=[RUN, RUN, {**RUN, "run_id": "run-b"}]))
    assert problems["eval_datasets"]["message"].endswith("given twice: run-a")


def test_an_unknown_engine_is_answered_with_the_known_ones(refusing):
    problem = refused(refusing, a_request(engine="lm-eval"))["engine"]
    assert problem["allowed"] == ["opencompass"]


def test_an_unknown_data_set_is_answered_with_near_misses_and_the_known_ones(refusing):
    problem = refused(refusing, a_request(eval_datasets=[RUN, *run(dataset_id="sigaa_gen", run_id="run-b")]))
    told = problem["eval_datasets.1.dataset_id"]
    assert "did you mean siqa_gen" in told["message"]
    assert {"siqa_gen", "demo_gsm8k_chat_gen"} <= set(told["allowed"])
    assert told["allowed"] == sorted(told["allowed"])


@pytest.mark.parametrize(("dataset_id", "why"), [("siqa_ppl", "token probabilities"), ("__judge__", "judge model")])
def test_a_data_set_that_a_chat_api_cannot_answer_says_why(refusing, dataset_id, why):
    from budeval.engines.opencompass.engine import dataset_kinds

    if dataset_id == "__judge__":
        dataset_id = next(name for name, kind in dataset_kinds().items() if kind == "judge")
    problem = refused(refusing, a_request(eval_datasets=run(dataset_id=dataset_id)))
    assert why in problem["eval_datasets.0.dataset_id"]["message"]


def test_the_known_data_sets_are_listed_once_however_many_are_unknown(refusing):
    datasets = [{"dataset_id": f"siqa_gen_{number}x", "run_id": f"run-{number}"} for number in range(200)]
    response = refusing.start(a_request(eval_datasets=datasets))
    assert len(is_problem(response, 422)["errors"]) == 200
    assert len(response.content) < 200_000


EXTRA_ARGS = [
    ("querry_per_second", "50"),
    ("query_per_second", "many"),
    ("query_per_second", "0"),
    ("query_per_second", "nan"),
    ("query_per_second", "inf"),
    ("query_per_second", True),
    ("query_per_second", None),
    ("query_per_second", []),
    ("max_out_len", "2048.5"),
    ("max_out_len", "-1"),
    ("max_seq_len", "{{ 1 }}"),
    ("batch_size", 1025),
    ("temperature", "2.1"),
    ("timeout", "0"),
    ("retry", "-1"),
]


@pytest.mark.parametrize(("name", "value"), EXTRA_ARGS)
def test_an_engine_argument_that_is_unknown_or_mistyped(refusing, name, value):
    problems = refused(refusing, a_request(eval_model_info__extra_args={name: value}))
    assert [field for field in problems if field.startswith(f"eval_model_info.extra_args.{name}")]


def test_an_unknown_engine_argument_is_answered_with_the_known_ones(refusing):
    problem = refused(refusing, a_request(eval_model_info__extra_args={"querry_per_second": "50"}))
    told = problem["eval_model_info.extra_args.querry_per_second"]
    assert "query_per_second" in told["allowed"]


CONFIGS = [
    ("config_name", config("pol_interval", 1)),
    ("config_name", config("", 1)),
    ("config_name", [*config("max_checks", 1), *config("max_checks", 2)]),
    ("config_value", config("poll_interval", 0)),
    ("config_value", config("poll_interval", "3601")),
    ("config_value", config("poll_interval", "often")),
    ("config_value", config("poll_interval", True)),
    ("config_value", config("poll_interval", 1.5)),
    ("config_value", config("max_checks", 100_001)),
    ("config_value", config("progress_every", 0)),
    ("config_value", config("max_questions", 0)),
    ("config_value", config("max_questions", "all")),
    ("config_value", config("max_questions", None)),
]


@pytest.mark.parametrize(("part", "configs"), CONFIGS)
def test_a_setting_that_is_unknown_or_mistyped(refusing, part, configs):
    problems = refused(refusing, a_request(eval_configs=configs))
    assert [field for field in problems if field.startswith("eval_configs.") and part in field]


def test_an_unknown_setting_is_answered_with_the_known_ones(refusing):
    problem = refused(refusing, a_request(eval_configs=config("polling", 1)))["eval_configs.0.config_name"]
    assert problem["allowed"] == ["poll_interval", "max_checks", "progress_every", "max_questions"]


def test_a_limit_of_questions_for_a_data_set_that_is_scored_whole(refusing):
    body = a_request(eval_datasets=run(dataset_id="humaneval_gen"), eval_configs=config("max_questions", 10))
    problems = refused(refusing, body)
    assert "'humaneval_gen' can only be scored as a whole" in problems["eval_configs"]["message"]


ENDPOINTS = [
    "", "127.0.0.1:13200/v1", "/v1", "//host/v1", "ftp://host/v1", "file:///etc/passwd", "javascript:alert(1)",
    "http://", "http:///v1", "http://user@host/v1", "http://user:canary-password@host/v1", "http://@host/v1",
    "http://host/v1?key=canary", "http://host/v1#part", "http://host:0/v1", "http://host:99999/v1", "http://host:port/",
    "http://host/a b", "http://host/\n", "http://ho\tst/", "http://host/\x00", "http://[::1/v1", " http://host/v1",
    "http://" + "h" * 2050, "http://host/v1?", "http://host/v1#", "http://[::1]evil/v1", "http://[v1.x]/v1", "http://host\\evil/",
    "http://[fe80::1%25eth0]/v1", "http://[1.2.3.4]/", "http://ho<st>/", "http://%68ost/", "http://-/", "http://../", "http://a..b/",
    "http://*/", "http://'/", "http://host;x/", "http://host\u3002com/", "http://host:80:90/", "http://host\u200b/",
    f"http://{'h' * 64}/",
]  # fmt: skip


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_an_endpoint_that_is_no_plain_http_url(refusing, endpoint):
    assert "eval_model_info.endpoint" in refused(refusing, a_request(eval_model_info__endpoint=endpoint))


PLAIN_ENDPOINTS = [
    "http://127.0.0.1:13200/v1", "https://host/v1/", "HTTP://Host", "http://[::1]:80/v1", "http://[::ffff:1.2.3.4]/v1", "http://a_b:/",
    "https://xn--hst-sna.example./v1", "https://hôst.example/v1", f"http://{'h' * 63}.{'h' * 63}/v1;a/b@c:d",
]  # fmt: skip


@pytest.mark.parametrize("endpoint", PLAIN_ENDPOINTS)
def test_an_endpoint_that_is_a_plain_http_url(endpoint):
    assert EvalModelInfo(model_name="m", endpoint=endpoint).endpoint == endpoint


TEXTS = [
    ("eval_model_info.model_name", lambda text: {"eval_model_info__model_name": text}),
    ("eval_model_info.endpoint", lambda text: {"eval_model_info__endpoint": f"http://host/{text * 10}"}),
    ("eval_datasets.0.dataset_id", lambda text: {"eval_datasets": run(dataset_id=text)}),
    ("eval_datasets.0.run_id", lambda text: {"eval_datasets": run(run_id=text)}),
    ("engine", lambda text: {"engine": text}),
    ("source", lambda text: {"source": text}),
    ("source_topic.0", lambda text: {"source_topic": text}),
    ("eval_configs.0.config_name", lambda text: {"eval_configs": config(text, 1)}),
    *(
        (f"notification_metadata.{key}", lambda text, key=key: {"notification_metadata": {key: text}})
        for key in ("name", "workflow_id", "subscriber_ids", "category", "notification_type", "actor", "topic_keys")
    ),
]
BAD_TEXTS = ["a\x00b", "a\nb", "a\rb", "a\tb", "\x1b[31m", "\x7f", "\x85", LONG]


@pytest.mark.parametrize("text", BAD_TEXTS)
@pytest.mark.parametrize(("field", "change"), TEXTS, ids=[field for field, _ in TEXTS])
def test_control_characters_and_over_long_texts(refusing, field, change, text):
    problems = refused(refusing, a_request(**change(text)))
    assert [name for name in problems if name.startswith(field)]


@pytest.mark.parametrize(
    "api_key", ["canary ", "canary key", "cänary", "canary\nHeader: x", "canary\x00", "canary" * 700, 1, None]
)
def test_a_key_that_cannot_be_sent(refusing, api_key):
    assert "eval_model_info.api_key" in refused(refusing, a_request(eval_model_info__api_key=api_key))


TOPICS = ["", "two words", "../up", "-dash", "ümlaut", "a" * 257, [], [""], ["a"] * 11, None, 1, [1]]


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_that_is_no_name(refusing, topic):
    problems = refused(refusing, a_request(source_topic=topic))
    assert [field for field in problems if field.startswith("source_topic")]


KUBECONFIGS = {
    "runs a command": kubeconfig(user={"exec": {"command": "/bin/sh", "args": ["-c", "id"]}}),
    "runs a plugin": kubeconfig(user={"auth-provider": {"name": "gcp", "config": {"cmd-path": "/bin/sh"}}}),
    "reads a key": kubeconfig(user={"client-key": "/etc/shadow"}),
    "reads a certificate": kubeconfig(user={"client-certificate": "/etc/shadow"}),
    "reads a token": kubeconfig(user={"tokenFile": "/etc/shadow"}),
    "reads an authority": kubeconfig(cluster={"certificate-authority": "/etc/shadow"}),
    "goes by a proxy": kubeconfig(cluster={"proxy-url": "http://elsewhere"}),
    "impersonates": kubeconfig(user={"as": "root"}),
    "no URL": kubeconfig(cluster={"server": "file:///etc"}),
    "credentials in the URL": kubeconfig(cluster={"server": f"https://me:{TOKEN}@host"}),
    "not YAML": f"{{ token: {TOKEN}",
    "a text": TOKEN,
    "a list": f"[{TOKEN}]",
    "an object of Python": f"!!python/object/apply:os.system [{TOKEN}]",
    "aliases": "a: &a [x]\nb: [*a, *a]",
    "too long": KUBECONFIG + "#" * 70_000,
}


@pytest.mark.parametrize("text", KUBECONFIGS.values(), ids=KUBECONFIGS)
def test_a_kubeconfig_that_runs_reads_or_is_none(refusing, text):
    response = refusing.start(a_request(kubeconfig=text))
    assert [error["field"] for error in is_problem(response, 422)["errors"]] == ["kubeconfig"]
    assert TOKEN not in response.text


@pytest.mark.parametrize("value", [1, True, [], {"kind": "Config"}])
def test_a_kubeconfig_that_is_no_text(refusing, value):
    assert "kubeconfig" in refused(refusing, a_request(kubeconfig=value))


def test_all_problems_are_told_at_once(refusing):
    request = a_request(
        engine="opencompass",
        eval_datasets=run(dataset_id="nothing-like-it"),
        eval_model_info__extra_args={"speed": 1},
        eval_configs=config("polling", 1),
        kubeconfig="[]",
    )
    assert set(refused(refusing, request)) == {
        "eval_datasets.0.dataset_id",
        "eval_model_info.extra_args.speed",
        "eval_configs.0.config_name",
        "kubeconfig",
    }


@pytest.mark.parametrize(
    "changes",
    [
        {"eval_id": "wrong"},
        {"eval_model_info__surprise": API_KEY},
        {"engine": "unknown"},
        {"eval_model_info__endpoint": f"http://me:{API_KEY}@host/"},
        {"kubeconfig": kubeconfig(user={"exec": {"env": [{"name": "KEY", "value": API_KEY}]}})},
        {"eval_configs": config("max_checks", API_KEY)},
        {"eval_model_info__extra_args": {"max_out_len": API_KEY}},
    ],
)
def test_a_refusal_repeats_no_secret(refusing, changes):
    request = a_request(**{"eval_model_info__api_key": API_KEY, "kubeconfig": KUBECONFIG, **changes})
    response = refusing.start(request)
    is_problem(response, 422)
    assert "canary" not in response.text


# ------------------------------------------------------------------ bodies that are no requests


def post(service, content, **headers):
    return service.client.post("/evals/start", content=content, headers={"content-type": "application/json", **headers})


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 422),
        (b"{", 422),
        (b"null", 422),
        (b"[]", 422),
        (b'"text"', 422),
        (b"1", 422),
        (b"{'eval_id': 1}", 422),
        (b"\xff\xfe", 422),
        (b'{"source": "\xff"}', 400),
        (b"[" * 50_000, 400),
        (b'{"eval_id": ' + b"9" * 5000 + b"}", 400),
        (b'{"\\ud800": 1}', 422),
        (b'{"source": "\\ud800"}', 422),
        (b'{"eval_model_info": {"extra_args": {"\\ud800": 1}}}', 422),
        (json.dumps({"k" * 50_000: 1}).encode(), 422),
    ],
)
def test_a_body_that_is_no_request(refusing, content, status):
    response = post(refusing, content)
    problem = is_problem(response, status)
    assert len(response.content) < 20_000
    assert problem["title"] != "Internal error"


def test_malformed_json_is_a_problem_of_the_body(refusing):
    assert [error["field"] for error in post(refusing, b'{"eval_id": ').json()["errors"]] == ["body"]


def test_a_body_of_another_type(refusing):
    response = refusing.client.post("/evals/start", content=b"a=1", headers={"content-type": "text/plain"})
    is_problem(response, 422)


def test_a_body_over_the_limit_is_refused_by_its_announced_length(refusing):
    response = post(refusing, b" " * (MAXIMUM_BODY_BYTES + 1))
    assert str(MAXIMUM_BODY_BYTES) in is_problem(response, 413)["detail"]


def test_a_body_over_the_limit_is_refused_also_when_it_comes_in_chunks(refusing):
    def chunks():
        for _ in range(MAXIMUM_BODY_BYTES // 1000 + 1):
            yield b" " * 1000

    is_problem(post(refusing, chunks()), 413)


def test_a_body_at_the_limit_is_read(refusing):
    is_problem(post(refusing, b"[]".ljust(MAXIMUM_BODY_BYTES)), 422)
