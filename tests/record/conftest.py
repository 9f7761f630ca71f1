import pytest

from tests.samples import SECRETS, an_evaluation, job_names


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request, tmp_path):
    """URL of an empty database, once of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state/record.sqlite"
    return request.getfixturevalue("postgresql").emptied()


@pytest.fixture
def evaluation(record):
    """An evaluation that is in the record, with the runs run-a and run-b."""
    evaluation = an_evaluation()
    assert record.create(evaluation, SECRETS, b"the request", job_names(evaluation), "tester")
    return evaluation
