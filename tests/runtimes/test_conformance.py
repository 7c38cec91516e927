"""What every runtime owes the loop, and what the pool does when workers misbehave."""

import os
import sys
from pathlib import Path

import pytest
import torch

from silotune.engine import QuorumError, Server, federate
from silotune.engine.checkpoint import everything
from silotune.optim import SGD
from silotune.privacy import ClientLevel, Correlated, Gaussian, Poisson, Rotation
from silotune.runtimes import InProcess, Pool
from silotune.runtimes.pool import WorkerError
from toys import begin, bench, experiment, recipe, silos

WORKER = Path(__file__).parent / "worker.py"
RECIPE = recipe("ffa-lora", SGD(learning_rate=0.3))


@pytest.fixture(autouse=True)
def double_precision(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(WORKER.parent.parent))
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(before)


def pooled(tmp_path: Path, fault: str = "none", **choices) -> Pool:
    command = [sys.executable, str(WORKER), fault, str(tmp_path / "flag")]
    return Pool(command, list(silos()), **choices)


def last(runtime, **changes):
    rounds = federate(experiment(RECIPE, runtime.clients(), **changes), runtime, begin(RECIPE))
    return list(rounds)[-1]


def reference():
    return last(InProcess(bench(RECIPE), silos())).state.factors.digest()


@pytest.mark.parametrize("fault", ["none", "dies", "dies-after"])
def test_the_pool_ends_in_the_same_bits_even_when_a_worker_dies(tmp_path, fault):
    with pooled(tmp_path, fault) as pool:
        assert last(pool).state.factors.digest() == reference()
    assert (tmp_path / "flag").exists() == (fault != "none")


KINDS = {
    "poisson": {
        "sampling": Poisson(0.6),
        "noise": Gaussian(1.0),
        "target_quantile": 0.5,
    },
    "rotation": {"sampling": Rotation(2), "noise": Correlated(1.0, 2)},
}


@pytest.mark.parametrize(("kind", "fault"), [("poisson", "none"), ("rotation", "dies")])
def test_hidden_clients_end_in_the_same_bits_too(tmp_path, kind, fault):
    """Noise and cohorts come from a seed here, or no two runs could be compared."""
    mechanism = ClientLevel(
        clients=40,
        max_update_norm=0.2,
        insecure_seed=4,
        **KINDS[kind],
    )

    def end(runtime, home):
        uniform = dict.fromkeys(runtime.clients(), 1.0)
        exp = experiment(RECIPE, runtime.clients(), central=mechanism, weights=uniform)
        rounds = list(federate(exp, runtime, begin(RECIPE), Server(home=tmp_path / home)))
        return everything(rounds[-1].state).digest()

    with pooled(tmp_path, fault) as pool:
        assert end(pool, "pool") == end(InProcess(bench(RECIPE), silos()), "here")


def test_a_corrupt_result_is_a_missing_client(tmp_path):
    with pooled(tmp_path, "corrupt", workers=1) as pool:
        done = last(pool, rounds=1, quorum=2)
    assert len(done.pooled.clients) == 2
    assert list(done.pooled.missing.values()) == ["no answer in time"]


def test_a_worker_that_hangs_is_given_up_at_the_deadline_and_the_next_round_is_whole(tmp_path):
    with pooled(tmp_path, "hangs", workers=2, deadline=20.0) as pool:
        rounds = list(
            federate(experiment(RECIPE, pool.clients(), rounds=2, quorum=2), pool, begin(RECIPE))
        )
    assert len(rounds[0].pooled.clients) == 2
    assert len(rounds[1].pooled.clients) == 3


def test_a_worker_that_always_dies_is_an_error_in_words(tmp_path):
    with (
        pooled(tmp_path, "dies-always", workers=1) as pool,
        pytest.raises(WorkerError, match="died 3 times"),
    ):
        last(pool)


def test_a_workers_own_error_reaches_the_user(tmp_path):
    with (
        pooled(tmp_path, "fails", workers=1) as pool,
        pytest.raises(WorkerError, match=r"data\.path: gone"),
    ):
        last(pool)


def test_too_few_answers_stop_the_run(tmp_path):
    with pooled(tmp_path, "hangs", workers=2, deadline=20.0) as pool, pytest.raises(QuorumError):
        last(pool, rounds=1, quorum=3)


def test_workers_die_with_the_pool(tmp_path):
    with pooled(tmp_path, workers=1) as pool:
        last(pool, rounds=1)
        process = pool._slots[0]._process
        assert process is not None
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
