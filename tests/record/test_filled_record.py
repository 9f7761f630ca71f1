"""The record that benchmarks ask is one that the service can read."""

from benchmarks import filled_record


def test_what_benchmarks_fill_in_can_be_shown(record, database):
    filled_record.fill(database, 3)
    view = record.view(filled_record.eval_id(2))
    assert (view.status, len(view.runs)) == ("COMPLETED", filled_record.RUNS)
    assert view.notifications.waiting == 0
