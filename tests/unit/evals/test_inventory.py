import threading

import pytest

from budeval.commons.errors import ClusterNotReady, ClusterUnreachable, TemporaryError
from budeval.commons.settings import Settings
from budeval.engines import get_engine
from budeval.evals.inventory import RETRY_SECONDS, InventoryKeeper
from budeval.evals.preflight import Preflight, PreflightBusy
from tests.scripted_cluster import ScriptedCluster

REFRESH_SECONDS = 900


@pytest.fixture
def cluster():
    return ScriptedCluster()


@pytest.fixture
def clock():
    return [1000.0]


@pytest.fixture
def preflight(cluster):
    return Preflight(Settings(preflight_concurrency=1), cluster)


@pytest.fixture
def keeper(cluster, preflight, clock):
    return InventoryKeeper(cluster, preflight, REFRESH_SECONDS, lambda: clock[0])


def settled(keeper):
    """What is known when no look is under way."""
    keeper.known()
    for thread in [thread for thread in threading.enumerate() if thread.name == "inventory"]:
        thread.join(20)
    return keeper.known()


def test_asking_has_the_volume_looked_at_in_the_background(keeper, cluster):
    assert keeper.known().present is None
    known = settled(keeper)
    assert (known.present, known.questions) == ({"siqa_gen"}, {"siqa_gen": 1954})
    assert len(cluster.trials) == 1


def test_many_who_ask_have_it_looked_at_once(keeper, cluster):
    cluster.go_on.clear()
    for _ in range(20):
        assert keeper.known().present is None
    cluster.go_on.set()
    settled(keeper)
    assert len(cluster.trials) == 1


def test_what_is_old_is_looked_at_again_and_counted_only_where_new(keeper, cluster, clock):
    settled(keeper)
    clock[0] += REFRESH_SECONDS - 1
    settled(keeper)
    assert len(cluster.trials) == 1
    clock[0] += 2
    cluster.present = ["siqa_gen", "piqa_gen"]
    known = settled(keeper)
    assert known.present == {"siqa_gen", "piqa_gen"}
    assert "siqa_gen" not in cluster.trials[1].questions.datasets
    assert known.questions == {"siqa_gen": 1954, "piqa_gen": 1954}


def test_what_is_gone_is_forgotten(keeper, cluster):
    keeper.refreshed()
    cluster.present = ["piqa_gen"]
    known = keeper.refreshed()
    assert (known.present, set(known.questions)) == ({"piqa_gen"}, {"piqa_gen"})


def test_a_wish_counts_everything_anew(keeper, cluster):
    keeper.refreshed()
    keeper.refreshed()
    assert "siqa_gen" in cluster.trials[1].questions.datasets


def test_a_look_that_fails_keeps_what_is_known_and_is_tried_again_sooner(keeper, cluster, clock):
    settled(keeper)
    clock[0] += REFRESH_SECONDS + 1
    cluster.error = ClusterUnreachable("refused")
    known = settled(keeper)
    assert known.present == {"siqa_gen"}
    assert "refused" in known.problem
    cluster.error = None
    clock[0] += RETRY_SECONDS + 1
    assert settled(keeper).problem is None


def test_a_cluster_that_cannot_be_looked_at_is_told(keeper, cluster):
    cluster.error = ClusterNotReady("no cluster is known")
    with pytest.raises(TemporaryError, match="no cluster is known"):
        keeper.refreshed()


def test_data_sets_that_cannot_be_loaded_are_not_there(keeper, cluster):
    cluster.present, cluster.missing = ["siqa_gen", "piqa_gen"], ["piqa_gen"]
    known = keeper.refreshed()
    assert known.broken == {"piqa_gen"}
    described = {each.dataset_id: each.present for each in map(known.described, get_engine("opencompass").datasets())}
    assert (described["siqa_gen"], described["piqa_gen"], described["gsm8k_gen"]) == (True, False, False)


def test_where_the_files_of_a_data_set_would_be_is_not_always_known(keeper, cluster):
    engine = get_engine("opencompass")
    nowhere = next(each for each in engine.datasets() if each.usable and each.dataset_id not in engine.data_paths())
    assert keeper.refreshed().described(nowhere).present is None


def test_a_preflight_leaves_no_place_for_a_look(keeper, preflight):
    with preflight.place(), pytest.raises(PreflightBusy):
        keeper.refreshed()


def test_nothing_is_looked_at_where_that_is_turned_off(cluster, preflight):
    keeper = InventoryKeeper(cluster, preflight, 0)
    assert settled(keeper).present is None
    assert cluster.trials == []
