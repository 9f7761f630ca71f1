"""Text that is code somewhere else: refused, or kept to the letter and run nowhere."""

import pytest

from tests.api.test_start import is_problem
from tests.samples import EVAL_ID, a_request

HOSTILE = [
    "{{ lookup('pipe', 'touch /tmp/budeval-pwned') }}",
    "{% for x in range(10**9) %}{% endfor %}",
    "!!python/object/apply:os.system ['id']",
    "&anchor [*anchor]",
    "- a: {b: c}",
    "$(touch /tmp/budeval-pwned)",
    "`id`; rm -rf / #",
    "' OR 1=1; DROP TABLE evaluations; --",
    "../../../../etc/passwd",
    "..\\..\\windows",
    "%2e%2e%2f",
    "${HOME}",
    "<script>alert(1)</script>",
    "实验—Ünïcödé—🧪👩‍🔬",
    "\u202egnp.exe",
    "\u200b\ufeff",
    "a\u2028b\u2029c",
    "NUL\x00byte",
    "line\nbreak",
    "__proto__",
    "null",
    "0x1F",
]


def kept_nowhere(_evaluation, _shown):
    return set()


FIELDS = {
    "model_name": (
        lambda text: a_request(eval_model_info__model_name=text),
        lambda evaluation, shown: {evaluation.model.model_name, shown["model_name"]},
    ),
    "endpoint": (
        lambda text: a_request(eval_model_info__endpoint=f"http://127.0.0.1:1/{text}"),
        lambda evaluation, _shown: {evaluation.model.endpoint.removeprefix("http://127.0.0.1:1/")},
    ),
    "api_key": (lambda text: a_request(eval_model_info__api_key=text), kept_nowhere),
    "run_id": (
        lambda text: a_request(eval_datasets=[{"dataset_id": "siqa_gen", "run_id": text}]),
        lambda evaluation, shown: {evaluation.runs[0].run_id, shown["runs"][0]["run_id"]},
    ),
    "source": (
        lambda text: a_request(source=text),
        lambda evaluation, shown: {evaluation.source, shown["source"]},
    ),
    "source_topic": (
        lambda text: a_request(source_topic=text),
        lambda evaluation, _shown: set(evaluation.source_topics),
    ),
    **{
        key: (
            lambda text, key=key: a_request(notification_metadata={key: text}),
            lambda evaluation, _shown, key=key: {getattr(evaluation.notification, key)},
        )
        for key in ("name", "workflow_id", "subscriber_ids", "category", "notification_type", "actor", "topic_keys")
    },
}
"""How a text gets into a field, and where it must be found again."""

ALWAYS_REFUSED = {
    "eval_id": lambda text: a_request(eval_id=text),
    "experiment_id": lambda text: a_request(experiment_id=text),
    "extra_args name": lambda text: a_request(eval_model_info__extra_args={text: 1}),
    "extra_args value": lambda text: a_request(eval_model_info__extra_args={"max_out_len": text}),
    "dataset_id": lambda text: a_request(eval_datasets=[{"dataset_id": text, "run_id": "a"}]),
    "config_name": lambda text: a_request(eval_configs=[{"config_name": text, "config_value": 1}]),
    "config_value": lambda text: a_request(eval_configs=[{"config_name": "max_checks", "config_value": text}]),
    "engine": lambda text: a_request(engine=text),
    "kubeconfig": lambda text: a_request(kubeconfig=text),
    "an unknown key": lambda text: {**a_request(), text: 1},
}


@pytest.mark.parametrize("field", FIELDS)
def test_hostile_text_is_refused_or_kept_to_the_letter(serve, field):
    request, kept = FIELDS[field]
    service = serve()
    taken = []
    for number, text in enumerate(HOSTILE):
        eval_id = f"{number:08}{EVAL_ID[8:]}"
        response = service.start({**request(text), "eval_id": eval_id})
        if response.status_code != 200:
            is_problem(response, 422)
            continue
        taken.append(eval_id)
        shown = service.client.get(f"/evals/{eval_id}").json()
        assert kept(service.record.definition(eval_id), shown) <= {text}
        name = shown["runs"][0]["job_name"]
        assert name.isascii() and name.replace("-", "").isalnum() and len(name) <= 63
    assert taken
    assert service.created().evaluations == taken


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("field", ALWAYS_REFUSED)
def test_hostile_text_is_refused_where_only_known_values_make_sense(refusing, field, text):
    is_problem(refusing.start(ALWAYS_REFUSED[field](text)), 422)
