"""Plain values that many tests begin with."""

from datetime import UTC, datetime

from cryptography.fernet import Fernet
from pydantic import SecretStr

from budeval.commons.sealing import EvaluationSecrets, Sealer
from budeval.commons.settings import MonitorSettings
from budeval.evals.models import Evaluation, ModelInfo, NotificationMetadata, Run
from budeval.evals.notifications import outgoing
from budeval.jobs.names import job_name
from budeval.record.outbox import write_messages

EVAL_ID = "444e4567-e89b-12d3-a456-426614174020"
NOW = datetime(2026, 1, 1, 10, 0, tzinfo=UTC)
API_KEY = "canary-of-an-api-key"
TOKEN = "canary-of-a-kubeconfig-token"
KUBECONFIG = f"""\
apiVersion: v1
kind: Config
current-context: there
clusters: [{{name: there, cluster: {{server: "https://127.0.0.1:1"}}}}]
users: [{{name: me, user: {{token: {TOKEN}}}}}]
contexts: [{{name: there, context: {{cluster: there, user: me}}}}]
"""
SECRETS = EvaluationSecrets(api_key=SecretStr(API_KEY), kubeconfig=SecretStr(KUBECONFIG))


def an_evaluation(eval_id=EVAL_ID, run_ids=("run-a", "run-b"), **changes):
    """An evaluation of ``siqa_gen`` with one run for each id."""
    values = {
        "eval_id": eval_id,
        "model": ModelInfo(model_name="small-model", endpoint="http://127.0.0.1:13200/v1"),
        "runs": [Run(run_id=run_id, dataset_id="siqa_gen") for run_id in run_ids],
        "engine": "opencompass",
        "monitor": MonitorSettings(),
        "source": "budapp",
        "source_topics": ["budapp-notifications"],
        "notification": NotificationMetadata(),
        "has_api_key": True,
    }
    return Evaluation.model_validate({**values, **changes})


def a_request(**changes):
    """The guide's request as the guide has it, endpoint and data set replaced; ``a__b=1`` changes ``a.b``."""
    request = {
        "eval_id": EVAL_ID,
        "experiment_id": "123e4567-e89b-12d3-a456-426614174000",
        "eval_model_info": {
            "model_name": "gpt-oss-20b",
            "endpoint": "http://127.0.0.1:13200/v1",
            "api_key": "sk-BudLiteLLMMasterKey_123",
            "extra_args": {"query_per_second": "50", "max_out_len": "2048", "max_seq_len": "4096"},
        },
        "eval_datasets": [{"dataset_id": "siqa_gen", "run_id": "test-monitor-pattern-001"}],
        "eval_configs": [],
        "engine": "opencompass",
        "source": "budapp",
        "source_topic": "budapp-notifications",
    }
    for path, value in changes.items():
        *parents, name = path.split("__")
        target = request
        for parent in parents:
            target = target[parent]
        target[name] = value
    return request


def write_down(outbox, messages, eval_id=EVAL_ID):
    """Messages in the outbox, without anything that they tell."""
    with outbox._write() as session:
        write_messages(session, eval_id, messages)


def announce(notifier, evaluation, announcements):
    """Announcements in the outbox, and as far as may be at their subscribers."""
    write_down(notifier._outbox, outgoing(evaluation, announcements), evaluation.eval_id)
    notifier.flush(evaluation.eval_id)


def job_names(evaluation):
    """Name of each run's Job, by run id."""
    return {run_id: job_name(evaluation.eval_id, run_id) for run_id in evaluation.run_ids}


def a_sealer():
    """A sealer with a key of its own."""
    return Sealer([Fernet.generate_key().decode()])
