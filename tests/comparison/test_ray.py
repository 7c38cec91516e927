"""A grid over a Ray cluster comes to what processes of this machine make, whatever is killed."""

import os
import signal
from pathlib import Path

import pytest

from federation.test_ray import actors
from silotune import compare
from silotune.comparison import compared
from silotune.comparison.complete import here
from silotune.comparison.measure import NOT_YET

ray = pytest.importorskip("ray", reason="Ray is not installed: silotune[ray]")

pytestmark = [
    pytest.mark.full,
    pytest.mark.engine,
    pytest.mark.xdist_group("couriers"),
    pytest.mark.filterwarnings("default"),  # of Ray's own
]

GIVEN = {
    "base": "small.yaml",
    "set": {
        "train.num_rounds": 2,
        "data.num_examples": 20,
        "privacy": {
            "unit": "example",
            "noise_multiplier": 2,
            "target_delta": 1e-3,
            "insecure_seeded_noise": True,
        },
    },
    "axes": {"method": {"ffa": {"method": {"name": "ffa-lora", "r": 2}}}},
    "seeds": 3,
}


def test_a_grid_on_a_cluster_is_that_of_one_process_though_actors_are_killed(place):
    alone = compare(GIVEN, "alone", runner=here)
    killed = []

    def kill(news) -> None:
        if not killed:
            killed.extend(actors())
            for pid in killed:
                os.kill(pid, signal.SIGKILL)

    found = compare(GIVEN, "grid", runtime="ray", at_once=1, tell=kill)
    assert len(killed) == 1
    assert [run.value for run in found.runs] == [run.value for run in alone.runs]
    assert not actors()


def test_what_is_stopped_has_not_failed_and_is_made_by_the_next(place):
    def stop(news) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare(GIVEN, "grid", runtime="ray", at_once=1, tell=stop)
    assert not actors()
    missing = compared(Path("grid")).failed
    assert 1 <= len(missing) <= 2
    assert {run.failed for run in missing} == {NOT_YET}
    assert compare(GIVEN, "grid", runtime="ray", at_once=1).failed == []


def test_more_at_once_than_the_cluster_has_are_refused(place):
    with pytest.raises(ValueError, match="at_once: Ray's cluster can make"):
        compare(GIVEN, "grid", runtime="ray", at_once=100_000)
