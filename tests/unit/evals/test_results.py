import hashlib
import json
import os

import pytest

from budeval.commons.errors import ResultsIncomplete
from budeval.evals.results_processor import MAXIMUM_RESULT_BYTES, MountedResults, ResultsProcessor, judge_result
from budeval.jobs.models import ResultFile
from budeval.jobs.names import job_name
from tests.samples import EVAL_ID, KUBECONFIG, an_evaluation

RUN = an_evaluation(run_ids=("run-a",)).runs[0]
SCORE = {"dataset": "siqa", "version": "18632c", "metric": "accuracy", "mode": "gen", "score": 35.42}


def a_document(**changes):
    document = {
        "schema": 1,
        "eval_id": EVAL_ID,
        "run_id": "run-a",
        "dataset_id": "siqa_gen",
        "scores": [SCORE],
        "questions": {"asked": 48, "answered": 48, "failed": 0},
        "versions": {"opencompass": "0.5.4", "engine": "0.1.0"},
        "data_sha256": "..",
        "started_at": "2026-01-01T10:00:00Z",
        "completed_at": "2026-01-01T10:15:30Z",
        "duration_seconds": 930.0,
    }
    return {**document, **changes}


def content(**changes):
    return json.dumps(a_document(**changes)).encode()


def judged(data, digest=None):
    return judge_result(EVAL_ID, RUN, ResultFile(content=data), digest)


def score(**changes):
    return {"scores": [{**SCORE, **changes}]}


def questions(**changes):
    return {"questions": {"asked": 48, "answered": 48, "failed": 0, **changes}}


# ------------------------------------------------------------------ the truth check


def test_a_complete_result_is_a_success_with_every_number():
    data = content()
    result = judged(data, hashlib.sha256(data).hexdigest())
    assert result.succeeded
    assert [item.model_dump() for item in result.scores] == [SCORE]
    assert (result.duration_seconds, result.questions) == (930.0, {"asked": 48, "answered": 48, "failed": 0})
    assert (result.start_time.isoformat(), result.completion_time.isoformat()) == (
        "2026-01-01T10:00:00+00:00",
        "2026-01-01T10:15:30+00:00",
    )


@pytest.mark.parametrize("number", [0, 0.0, 100, -1.5, 1e-300])
def test_every_finite_number_is_a_score(number):
    assert judged(content(**score(score=number))).scores[0].score == number


INCOMPLETE = {
    "no score": ({"scores": []}, "there is no score"),
    "NaN": (score(score=float("nan")), "siqa/accuracy is no number"),
    "infinity": (score(score=float("inf")), "is no number"),
    "minus infinity": (score(score=float("-inf")), "is no number"),
    "no number": (score(score=None), "scores.0.score"),
    "a text": (score(score="35.42"), "scores.0.score"),
    "a truth value": (score(score=True), "scores.0.score"),
    "one good and one bad": ({"scores": [SCORE, {**SCORE, "score": float("nan")}]}, "is no number"),
    "an unanswered question": (questions(answered=47), "47 of 48 questions were answered"),
    "a failed question": (questions(answered=47, failed=1), "47 of 48 questions were answered"),
    "a failed question that counts as answered": (questions(failed=1), "1 of 48 questions failed"),
    "more answers than questions": (questions(answered=49), "49 of 48 questions were answered"),
    "no question": (questions(asked=0, answered=0), "no question was asked"),
    "fewer than none": (questions(answered=-1), "questions.answered"),
    "a count that is a truth value": (questions(asked=True, answered=True), "questions.asked"),
    "a count without end": (questions(asked=10**30, answered=10**30), "questions.asked"),
    "another evaluation": ({"eval_id": "other"}, "belongs to another run"),
    "another run": ({"run_id": "run-b"}, "belongs to another run"),
    "another data set": ({"dataset_id": "piqa_gen"}, "belongs to another run"),
    "a time without a zone": ({"started_at": "2026-01-01T10:00:00"}, "started_at"),
    "a time before all others": ({"started_at": "0001-01-01T00:00:00+14:00"}, "started_at"),
    "a time after all others": ({"completed_at": "9999-12-31T23:59:59-14:00"}, "completed_at"),
    "an endless duration": ({"duration_seconds": float("inf")}, "duration_seconds"),
    "a negative duration": ({"duration_seconds": -1}, "duration_seconds"),
    "an over-long name": (score(dataset="x" * 257), "scores.0.dataset"),
    "an over-long version": (score(version="x" * 65), "scores.0.version"),
    "an over-long mode": (score(mode="x" * 65), "scores.0.mode"),
    "a control character": (score(metric="a\x00b"), "scores.0.metric"),
    "too many scores": ({"scores": [SCORE] * 10_001}, "at most 10000"),
    "no scores at all": ({"scores": None}, "scores"),
}


@pytest.mark.parametrize(("changes", "why"), INCOMPLETE.values(), ids=INCOMPLETE)
def test_what_is_incomplete_is_an_error_that_says_what_is_missing(changes, why):
    result = judged(content(**changes))
    assert not result.succeeded
    assert result.error.reason == "ResultsIncomplete"
    assert why in result.error.message
    assert result.scores == []


NO_DOCUMENTS = [b"", b"{", b"null", b"[]", b"\xff\xfe", b"[" * 100_000, b'{"eval_id": "\\ud800"}']


@pytest.mark.parametrize("data", NO_DOCUMENTS)
def test_what_is_no_result_is_an_error(data):
    assert "result.json is not valid" in judged(data).error.message


def test_a_file_at_the_limit_is_read_and_one_over_it_is_not():
    data = content()
    assert judged(data.ljust(MAXIMUM_RESULT_BYTES)).succeeded
    assert "larger than" in judged(data.ljust(MAXIMUM_RESULT_BYTES + 1)).error.message


def test_a_file_that_the_engine_did_not_write_is_refused():
    assert "SHA-256 differs" in judged(content(), "0" * 64).error.message


def test_no_file_is_an_error_with_the_readers_reason():
    result = judge_result(EVAL_ID, RUN, ResultFile(error="the volume is empty"), None)
    assert result.error.message == "the volume is empty"


def test_the_engines_words_do_not_reach_a_message_unredacted():
    message = judged(content(**score(dataset="sk-canary-of-a-key", score=float("nan")))).error.message
    assert "canary" not in message


# ------------------------------------------------------------------ from the mounted volume


@pytest.fixture
def put(tmp_path):
    """Lays a result out as the engine does; answers the directory of the run."""

    def lay_out(run_id="run-a", data=None, eval_id=EVAL_ID):
        directory = tmp_path / "volume" / "results" / eval_id / job_name(eval_id, run_id)
        directory.mkdir(parents=True)
        if data is not None:
            (directory / "result.json").write_bytes(data)
        return directory

    return lay_out


@pytest.fixture
def mounted(tmp_path):
    return MountedResults(tmp_path / "volume", Elsewhere())


class Elsewhere:
    """The reader for clusters whose volume is not mounted here."""

    def __init__(self):
        self.asked = []

    def read_results(self, eval_id, job_names, kubeconfig=None):
        self.asked.append((eval_id, list(job_names), kubeconfig))
        return {name: ResultFile(content=b"from elsewhere") for name in job_names}


NAME = job_name(EVAL_ID, "run-a")


def read(mounted, name=NAME, eval_id=EVAL_ID):
    return mounted.read_results(eval_id, [name])[name]


def test_a_file_on_the_volume_is_read_to_the_byte(put, mounted):
    put(data=b'{"\xc3\xbc": 1}\r\n')
    assert read(mounted).content == b'{"\xc3\xbc": 1}\r\n'


def test_a_run_that_left_nothing_is_an_error_of_its_own(put, mounted):
    put("run-a")
    put("run-b", b"{}")
    other = job_name(EVAL_ID, "run-b")
    files = mounted.read_results(EVAL_ID, [NAME, other, job_name(EVAL_ID, "run-c")])
    assert [file.content for file in files.values()] == [None, b"{}", None]
    assert "no result.json" in files[NAME].error


def test_a_file_without_end_is_read_no_further_than_the_limit(put, mounted):
    put(data=b"x" * (MAXIMUM_RESULT_BYTES * 2))
    assert len(read(mounted).content) == MAXIMUM_RESULT_BYTES + 1


@pytest.mark.parametrize("name", ["..", "../other", "a/b", "/etc", "", "UPPER", "a" * 64, "a\n"])
def test_a_name_that_is_a_path_is_not_followed(put, mounted, name):
    put(data=b"{}")
    assert "is no name of a Job" in read(mounted, name).error


def test_a_link_instead_of_a_file_is_not_followed(put, mounted, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (put() / "result.json").symlink_to(tmp_path / "secret")
    assert (read(mounted).content, "link" in read(mounted).error) == (None, True)


def test_a_link_instead_of_a_directory_is_not_followed(put, mounted, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "result.json").write_text("secret")
    directory = put()
    directory.rmdir()
    directory.symlink_to(tmp_path / "elsewhere")
    assert read(mounted).content is None


def test_a_link_to_the_result_of_another_run_is_not_followed(put, mounted):
    other = put("run-b", b"of another run")
    directory = put("run-a")
    directory.rmdir()
    directory.symlink_to(other)
    assert read(mounted).content is None


def test_a_pipe_is_not_waited_for(put, mounted):
    os.mkfifo(put() / "result.json")
    assert read(mounted).content is None


def test_a_directory_is_no_file(put, mounted):
    (put() / "result.json").mkdir()
    assert read(mounted).error == "result.json is no regular file"


def test_a_volume_of_another_cluster_is_not_the_mounted_one(put, mounted):
    put(data=b"of this cluster")
    files = mounted.read_results(EVAL_ID, [NAME], KUBECONFIG)
    assert files[NAME].content == b"from elsewhere"


# ------------------------------------------------------------------ all runs of an evaluation


class Volume:
    """A reader that has these files, by run id."""

    def __init__(self, **files):
        self.files = {name.replace("_", "-"): data for name, data in files.items()}
        self.asked = []

    def read_results(self, eval_id, job_names, kubeconfig=None):
        self.asked.append((list(job_names), kubeconfig))
        return {job_name(eval_id, run_id): ResultFile(content=data) for run_id, data in self.files.items()}


def test_all_completed_runs_are_read_at_once():
    volume = Volume(run_a=content(), run_b=content(run_id="run-b", scores=[]))
    evaluation = an_evaluation(run_ids=("run-a", "run-b", "run-c"))
    results = ResultsProcessor(volume).extract_all(evaluation, ["run-a", "run-b"], {}, KUBECONFIG)
    assert [(result.run_id, result.succeeded) for result in results] == [("run-a", True), ("run-b", False)]
    assert volume.asked == [([job_name(EVAL_ID, "run-a"), job_name(EVAL_ID, "run-b")], KUBECONFIG)]


def test_a_run_that_the_reader_forgot_is_an_error():
    results = ResultsProcessor(Volume(run_a=content())).extract_all(an_evaluation(), ["run-a", "run-b"], {})
    assert results[1].error.message == "the volume was read, but not this run"


def test_each_run_is_checked_against_its_own_digest():
    data = content()
    digests = {"run-a": hashlib.sha256(data).hexdigest(), "run-b": "0" * 64}
    results = ResultsProcessor(Volume(run_a=data, run_b=data)).extract_all(an_evaluation(), ["run-a", "run-b"], digests)
    assert [result.succeeded for result in results] == [True, False]


def test_one_run_alone_is_its_result_or_an_error():
    processor = ResultsProcessor(Volume(run_a=content(), run_b=b""))
    assert processor.extract_eval_results(an_evaluation(), "run-a").scores[0].score == 35.42
    with pytest.raises(ResultsIncomplete, match="not valid"):
        processor.extract_eval_results(an_evaluation(), "run-b")
