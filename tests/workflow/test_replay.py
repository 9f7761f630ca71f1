"""The workflows driven by hand: replayed they do the same again, and cancelled anywhere they end properly."""

import json
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from dapr.ext.workflow import RetryPolicy
from dapr.ext.workflow._durabletask.internal.helpers import new_failure_details
from dapr.ext.workflow._durabletask.task import CompletableTask, NonRetryableError, TaskFailedError

from budeval.commons.errors import BudEvalError, ClusterNotReady, ClusterUnreachable
from budeval.commons.wire import WorkflowStatus
from budeval.evals.models import Closing, ErrorInfo, EvaluationInput
from budeval.evals.monitoring import MonitorState
from budeval.evals.runtime import ActivityFailed, boundary
from budeval.evals.workflows import KEEP_TRYING, STEP_RETRY, close_evaluation, evaluate_model, monitor_jobs

EVALUATION = EvaluationInput(eval_id="e", run_ids=["a", "b"], poll_interval=30, max_checks=240, progress_every=10)
OUTCOME = {"completed_jobs": ["a"], "failed_jobs": ["b"], "remaining_jobs": [], "updated_state": {"stuck_jobs": []}}
ANSWERS: dict[str, Any] = {"monitor_jobs": {"code": 200, "message": "", "param": OUTCOME}}
Action = tuple[str, str, Any]


def new_task() -> CompletableTask[Any]:
    """A task that is not complete."""
    return CompletableTask()  # type: ignore[no-untyped-call]


class Script:
    """A context that answers every task at once: activities by name, events after so many actions."""

    instance_id = "e"

    def __init__(self, answers: dict[str, Any], cancel_after: int | None = None, *, replaying: bool = False) -> None:
        self.is_replaying = replaying
        self.actions: list[Action] = []
        self.timers_fire = True
        self.policies: dict[str, RetryPolicy] = {}
        self._answers = {**ANSWERS, **answers}
        self._cancel_after = cancel_after
        self._cancel = new_task()
        self.progress: list[Any] = []
        """Data of the progress events that come while the monitor runs, in order."""
        self.shown: list[Any] = []

    def call_activity(self, activity: str, *, input: Any = None, retry_policy: Any = None) -> Any:  # noqa: A002
        self.policies[activity] = retry_policy
        return self._task("activity", activity, input, self._answers.get(activity, {"message": "done"}))

    def call_child_workflow(self, workflow: str, *, input: Any, instance_id: str) -> Any:  # noqa: A002
        if not self.progress:
            return self._task("child", f"{workflow} {instance_id}", input, self._answers[workflow])
        self._after_progress = self._answers[workflow]
        self._child = new_task()
        return self._child

    def create_timer(self, fire_at: timedelta) -> Any:
        done = self._task("timer", str(fire_at), None, None)
        return done if self.timers_fire else new_task()

    def wait_for_external_event(self, name: str) -> Any:
        if name == "cancel":
            return self._cancel
        task = new_task()
        if name == "progress" and self.progress:
            task.complete(self.progress.pop(0))
            if not self.progress:
                self._child.complete(self._after_progress)
        return task

    def continue_as_new(self, new_input: Any, *, save_events: bool = False) -> None:
        self.actions.append(("continue", str(save_events), json.loads(json.dumps(new_input))))

    def set_custom_status(self, custom_status: str) -> None:
        self.shown.append(json.loads(custom_status))

    def _task(self, kind: str, name: str, value: Any, answer: Any) -> Any:
        self.actions.append((kind, name, json.loads(json.dumps(value))))
        if len(self.actions) == self._cancel_after:
            self._cancel.complete({})
        task = new_task()
        if isinstance(answer, ErrorInfo):
            task.fail("failed", new_failure_details(NonRetryableError(answer.model_dump_json())))
        else:
            task.complete(answer)
        return task


def drive(workflow: Callable[..., Any], value: Any, script: Script) -> Any:
    """Runs a workflow to its end; answers what it returned."""
    generator = workflow(script, value)
    try:
        task = next(generator)
        while True:
            try:
                result = task.get_result()
            except TaskFailedError as error:
                task = generator.throw(error)
            else:
                task = generator.send(result)
    except StopIteration as end:
        return end.value


def actions(answers: dict[str, Any], cancel_after: int | None = None, *, replaying: bool = False) -> list[Action]:
    script = Script(answers, cancel_after, replaying=replaying)
    drive(evaluate_model, EVALUATION, script)
    return script.actions


def names(made: list[Action]) -> list[str]:
    return [name for kind, name, _ in made if kind != "timer"]


FAILURE = ErrorInfo(reason="ClusterNotReady", message="no claim")
STORIES: list[dict[str, Any]] = [
    {},
    {"verify_cluster_connection": FAILURE},
    {"create_engine_config": FAILURE},
    {"deploy_eval_job_v2": FAILURE},
    {"extract_job_results": FAILURE},
    {"delete_eval_jobs": FAILURE, "deploy_eval_job_v2": FAILURE},
    {"monitor_jobs": {"code": 499, "param": OUTCOME}},
    {"monitor_jobs": {"code": 408, "param": {
        **OUTCOME, "remaining_jobs": ["b"], "updated_state": MonitorState.first(EVALUATION).model_dump(mode="json")}}},
]  # fmt: skip
TOTAL_ACTIONS = len(actions({}))


@pytest.mark.parametrize("answers", STORIES)
@pytest.mark.parametrize("cancel_after", [None, *range(1, TOTAL_ACTIONS)])
def test_a_replay_does_the_same_again(answers: dict[str, Any], cancel_after: int | None) -> None:
    first = actions(answers, cancel_after)
    assert actions(answers, cancel_after, replaying=True) == first
    assert actions(answers, cancel_after, replaying=True) == first


def test_an_evaluation_goes_through_its_steps_in_order() -> None:
    assert names(actions({})) == [
        "begin_evaluation",
        "announce_step", "verify_cluster_connection", "announce_step",
        "announce_step", "create_engine_config", "announce_step",
        "announce_step", "deploy_eval_job_v2", "announce_step",
        "announce_step", "monitor_jobs e-monitor",
        "extract_job_results", "finish_evaluation",
    ]  # fmt: skip


@pytest.mark.parametrize("cancel_after", range(1, TOTAL_ACTIONS))
def test_cancelled_anywhere_it_removes_what_it_may_have_made_and_says_so_at_its_end(cancel_after: int) -> None:
    made = actions({}, cancel_after)
    assert names(made)[-1] == "finish_evaluation"
    assert made[-1][2]["status"] == "TERMINATED"
    assert ("delete_eval_jobs" in names(made)) == deployment_has_begun(made)


def deployment_has_begun(made: list[Action]) -> bool:
    """Whether there may be something in the cluster."""
    return any(name == "announce_step" and value["event"] == "deploy_eval_job" for _, name, value in made)


@pytest.mark.parametrize("answers", [{}, {"delete_eval_jobs": FAILURE}])
def test_what_ended_without_a_word_is_cleaned_up_after_and_gets_its_last_word(answers: dict[str, Any]) -> None:
    made = closing_actions(answers, may_have_jobs=True)
    assert made == closing_actions(answers, may_have_jobs=True, replaying=True)
    assert names(made) == ["delete_eval_jobs", "finish_evaluation"]
    assert made[-1][2] == {"eval_id": "e", "attempt": 1, "status": "TERMINATED", "error": FAILURE.model_dump()}


def test_what_ended_before_its_deployment_gets_its_last_word_at_once() -> None:
    assert names(closing_actions({}, may_have_jobs=False)) == ["finish_evaluation"]


def closing_actions(answers: dict[str, Any], *, may_have_jobs: bool, replaying: bool = False) -> list[Action]:
    closing = Closing(
        evaluation=EVALUATION, status=WorkflowStatus.TERMINATED, error=FAILURE, may_have_jobs=may_have_jobs
    )
    script = Script(answers, replaying=replaying)
    drive(close_evaluation, closing, script)
    return script.actions


@pytest.mark.parametrize("step", ["verify_cluster_connection", "create_engine_config"])
def test_a_step_that_fails_before_the_deployment_is_announced_and_ends_the_evaluation_at_once(step: str) -> None:
    made = actions({step: FAILURE})
    assert names(made)[-3:] == [step, "announce_step", "finish_evaluation"]
    assert made[-2][2]["status"] == "FAILED"
    assert made[-1][2]["error"] == FAILURE.model_dump()


def test_a_failed_deployment_is_announced_cleaned_up_after_and_ends_the_evaluation() -> None:
    made = actions({"deploy_eval_job_v2": FAILURE})
    assert names(made)[-4:] == ["deploy_eval_job_v2", "announce_step", "delete_eval_jobs", "finish_evaluation"]
    assert made[-3][2]["status"] == "FAILED"
    assert made[-1][2]["error"] == FAILURE.model_dump()


def test_a_failed_clean_up_does_not_keep_the_last_word_from_being_said() -> None:
    made = actions({"deploy_eval_job_v2": FAILURE, "delete_eval_jobs": FAILURE})
    assert names(made)[-1] == "finish_evaluation"
    assert made[-1][2]["error"] == FAILURE.model_dump()


def test_at_the_timeout_only_what_has_not_ended_is_removed() -> None:
    state = MonitorState.first(EVALUATION).model_dump(mode="json")
    outcome = {**OUTCOME, "remaining_jobs": ["b"], "updated_state": state}
    made = actions({"monitor_jobs": {"code": 408, "param": outcome}})
    removed = next(value for _, name, value in made if name == "delete_eval_jobs")
    assert removed["run_ids"] == ["b"]
    assert made[-1][2]["error"]["reason"] == "MonitoringTimeout"


def test_steps_are_tried_for_two_minutes_and_telling_for_ever() -> None:
    script = Script({})
    drive(evaluate_model, EVALUATION, script)
    steps = {"verify_cluster_connection", "create_engine_config", "deploy_eval_job_v2"}
    assert {name for name, policy in script.policies.items() if policy is STEP_RETRY} == steps
    assert {id(policy) for name, policy in script.policies.items() if name not in steps} == {id(KEEP_TRYING)}


def test_the_workflow_shows_each_step_and_the_progress_that_its_monitor_tells() -> None:
    script = Script({})
    script.progress = [{"check": 10, "running": 2}, {"check": 20, "running": 1}]
    drive(evaluate_model, EVALUATION, script)
    steps = ["verify_cluster_connection", "preparing_eval_engine", "deploy_eval_job", "monitor_eval_job_progress"]
    assert script.shown[:4] == [{"step": step} for step in steps]
    assert script.shown[4:] == [
        {"step": "monitor_eval_job_progress", "check": 10, "running": 2},
        {"step": "monitor_eval_job_progress", "check": 20, "running": 1},
    ]
    assert names(script.actions)[-2:] == ["extract_job_results", "finish_evaluation"]


def test_the_monitor_begins_anew_with_ids_and_counters_and_keeps_events() -> None:
    after = MonitorState.first(EVALUATION).model_copy(update={"check_count": 1})
    param = {"custom_status": "{}", "updated_state": after.model_dump(mode="json")}
    script = Script({"monitor_jobs_loop": {"code": 202, "message": "", "param": param}})
    assert drive(monitor_jobs, MonitorState.first(EVALUATION), script) is None
    kind, save_events, state = script.actions[-1]
    assert (kind, save_events) == ("continue", "True")
    assert MonitorState.model_validate(state) == after
    assert [made[0] for made in script.actions] == ["activity", "timer", "continue"]


def test_a_check_that_was_woken_says_so_to_the_next() -> None:
    param = {"custom_status": "{}", "updated_state": MonitorState.first(EVALUATION).model_dump(mode="json")}
    script = Script({"monitor_jobs_loop": {"code": 202, "message": "", "param": param}}, cancel_after=1)
    script.timers_fire = False
    drive(monitor_jobs, MonitorState.first(EVALUATION), script)
    assert script.actions[-1][2]["woken"] is True


def _fails_with(error: Exception) -> Callable[[Any, Any], Any]:
    def activity(_ctx: Any, _request: Any) -> Any:
        raise error

    return boundary(activity)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ClusterNotReady("no claim"), NonRetryableError),
        (ClusterUnreachable("no answer"), ActivityFailed),
        (BudEvalError("anything of ours"), NonRetryableError),
        (KeyError("a defect"), ActivityFailed),
    ],
)
def test_the_boundary_turns_permanent_errors_into_the_one_class_that_stops_retries(
    error: Exception, expected: type[Exception]
) -> None:
    with pytest.raises(expected) as caught:
        _fails_with(error)(None, None)
    assert type(caught.value) is expected
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert ErrorInfo.model_validate_json(str(caught.value)).reason == type(error).__name__
