"""What every runtime owes the loop, and what couriers do when workers and sites misbehave.

A process takes seconds to start, so that one of each kind serves all tests that need toy silos.
"""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from covering import full
from runtimes.couriers import COURIERS, pool, ray
from silotune.engine import QuorumError, Server, federate
from silotune.engine.checkpoint import everything
from silotune.optim import SGD
from silotune.privacy import ClientLevel, Correlated, Gaussian, Poisson, Rotation
from silotune.runtimes import Courier, InProcess, Pool, Remote
from silotune.runtimes.pool import WorkerError
from toys import axes, begin, experiment, silos, trainer

HERE = Path(__file__).parent
RECIPE = axes("ffa-lora", SGD(lr=0.3))

pytestmark = [pytest.mark.xdist_group("one pool"), pytest.mark.usefixtures("double_precision")]


class Faults:
    """Clients elsewhere, and the file that tells whoever answers for them what to do wrong."""

    def __init__(self, courier: Courier, file: Path) -> None:
        self.file = file
        self.runtime = Remote(courier, list(silos()), 3600.0)

    def next(self, fault: str) -> Remote:
        """The runtime, in which whoever is asked next commits that fault."""
        self.file.write_text(fault)
        return self.runtime

    @property
    def committed(self) -> bool:
        return not self.file.exists()


@pytest.fixture(scope="module", params=COURIERS)
def toys_elsewhere(request, tmp_path_factory) -> Iterator[Faults]:
    place = tmp_path_factory.mktemp("elsewhere")
    command = [sys.executable, str(HERE / "worker.py"), str(place / "fault")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE.parent), prepend=os.pathsep)
        with request.param(command, list(silos()), place / "courier") as courier:
            yield Faults(courier, place / "fault")


@pytest.fixture
def faults(toys_elsewhere, monkeypatch) -> Iterator[Faults]:
    """The deadline is the usual one again when the test is done, and no fault is left."""
    monkeypatch.setattr(toys_elsewhere.runtime, "_deadline", 3600.0)
    yield toys_elsewhere
    toys_elsewhere.file.unlink(missing_ok=True)


@pytest.fixture
def worker_faults(request, faults) -> Faults:
    """Where whoever hangs is stopped, and started again."""
    if request.node.callspec.params["toys_elsewhere"] not in (pool, ray):
        pytest.skip("nobody stops a site that hangs")
    return faults


@contextmanager
def puppets(answer: str) -> Iterator[tuple[Remote, Pool]]:
    """A pool whose worker says this to everything; none if it is to die."""
    with Pool([sys.executable, str(HERE / "puppet.py"), answer], workers=1) as pool:
        yield Remote(pool, list(silos()), 3600.0), pool


def last(runtime, **changes):
    rounds = federate(experiment(RECIPE, runtime.clients(), **changes), runtime, begin(RECIPE))
    return list(rounds)[-1]


def reference():
    return last(InProcess(trainer(RECIPE), silos())).state.factors.digest()


def test_clients_elsewhere_end_in_the_same_bits(faults):
    assert last(faults.runtime).state.factors.digest() == reference()


def test_another_federation_with_the_same_rounds_is_not_mistaken_for_this_one(faults):
    """Its workers have forgotten the first rounds; a cohort may not ask all of them at once."""
    last(faults.runtime)
    here = InProcess(trainer(RECIPE), silos())
    changes = {"seed": 9, "rounds": 3}
    begun = last(here, **changes | {"rounds": 1}).state

    def end(runtime):
        done = federate(experiment(RECIPE, runtime.clients(), **changes), runtime, begun)
        return list(done)[-1].state.factors.digest()

    assert end(faults.runtime) == end(here)


@pytest.mark.full
@pytest.mark.parametrize("fault", ["dies", "dies-after"])
def test_clients_elsewhere_end_in_the_same_bits_even_when_a_worker_dies(faults, fault):
    run = f"law-{fault}"  # a site answers from what it keeps, if it has worked on an order before
    assert last(faults.next(fault), run=run).state.factors.digest() == reference()
    assert faults.committed


KINDS = {
    "poisson": {
        "sampling": Poisson(0.6),
        "noise": Gaussian(1.0),
        "target_quantile": 0.5,
    },
    "rotation": {"sampling": Rotation(2), "noise": Correlated(1.0, 2)},
}


@pytest.mark.parametrize(
    ("kind", "fault"),
    [full("poisson", "none"), ("rotation", "none"), full("rotation", "dies")],
)
def test_hidden_clients_end_in_the_same_bits_too(faults, tmp_path, kind, fault):
    """Noise and cohorts come from a seed here, or no two runs could be compared."""
    mechanism = ClientLevel(
        clients=40,
        max_update_norm=0.2,
        insecure_seed=4,
        **KINDS[kind],
    )

    def end(runtime, home):
        uniform = dict.fromkeys(runtime.clients(), 1.0)
        choices = {"run": f"law-{kind}-{fault}", "central": mechanism, "weights": uniform}
        exp = experiment(RECIPE, runtime.clients(), **choices)
        rounds = list(federate(exp, runtime, begin(RECIPE), Server(home=tmp_path / home)))
        return everything(rounds[-1].state).digest()

    assert end(faults.next(fault), "elsewhere") == end(InProcess(trainer(RECIPE), silos()), "here")
    assert faults.committed


def test_a_corrupt_result_is_a_missing_client(faults):
    done = last(faults.next("corrupt"), run="law-corrupt", rounds=1, quorum=2)
    assert len(done.pooled.clients) == 2
    assert list(done.pooled.missing.values()) == ["no answer in time"]


DEADLINE = 2.0
"""Seconds; of workers that are there already."""


@pytest.mark.full
def test_a_worker_that_hangs_is_given_up_at_the_deadline_and_the_next_round_is_whole(worker_faults):
    last(worker_faults.runtime, rounds=1)  # the workers are there
    begun, worker_faults.runtime._deadline = time.monotonic(), DEADLINE
    rounds = federate(
        experiment(RECIPE, worker_faults.runtime.clients(), rounds=2, quorum=2),
        worker_faults.next("hangs"),
        begin(RECIPE),
    )
    assert len(next(rounds).pooled.clients) == 2
    assert DEADLINE <= time.monotonic() - begun < 60.0
    worker_faults.runtime._deadline = 3600.0
    assert len(next(rounds).pooled.clients) == 3


@pytest.mark.full
def test_too_few_answers_stop_the_run(worker_faults):
    last(worker_faults.runtime, rounds=1)  # the workers are there
    worker_faults.runtime._deadline = DEADLINE
    with pytest.raises(QuorumError):
        last(worker_faults.next("hangs"), rounds=1, quorum=3)


def test_a_worker_that_always_dies_is_an_error_in_words():
    with puppets("") as (runtime, _), pytest.raises(WorkerError, match="died 3 times"):
        last(runtime)


def test_a_worker_that_does_not_answer_is_killed_at_the_deadline():
    with puppets("never") as (_, pool):
        [worker] = pool._workers
        worker.warm()
        pid = worker.pid
        assert list(pool.exchange({"north": b"order"}, 0.2)) == []
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        assert worker not in pool._workers, "another one takes its place"


def test_a_workers_own_error_reaches_the_user():
    with (
        puppets("!data.path: gone") as (runtime, _),
        pytest.raises(WorkerError, match=r"data\.path: gone"),
    ):
        last(runtime)


def test_workers_die_with_the_pool():
    with puppets("R is no result") as (runtime, pool):
        with pytest.raises(QuorumError):
            last(runtime, rounds=1)
        pid = pool._workers[0].pid
        assert pid is not None
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
