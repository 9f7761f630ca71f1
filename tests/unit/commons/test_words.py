import pytest

from budeval.commons.words import counted


@pytest.mark.parametrize(("number", "told"), [(0, "0 Jobs"), (1, "1 Job"), (2, "2 Jobs")])
def test_one_thing_is_no_plural(number, told):
    assert counted(number, "Job") == told
