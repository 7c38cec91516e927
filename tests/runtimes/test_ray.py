"""The courier to workers of a Ray cluster: what is Ray's about it. One cluster for all tests."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from runtimes.test_carrying import DEADLINE, ECHO
from silotune.runtimes import ray_cluster
from silotune.runtimes.pool import WorkerError
from silotune.runtimes.ray import RayCourier

ray = pytest.importorskip("ray", reason="Ray is not installed: silotune[ray]")

pytestmark = [
    pytest.mark.full,
    pytest.mark.engine,
    pytest.mark.xdist_group("couriers"),
    pytest.mark.filterwarnings("default"),  # of Ray's own
]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """The program's own, which couriers join."""
    before = signal.getsignal(signal.SIGTERM)
    ray_cluster._start(ray)
    assert signal.getsignal(signal.SIGTERM) is before, "whoever ends in order still does"
    yield
    ray.shutdown()


def test_an_actor_that_is_killed_begins_again_with_its_order(tmp_path):
    go = tmp_path / "go"
    with RayCourier(ECHO, tmp_path / "log", workers=1) as courier:
        worker = pid_of(courier)
        actor = int(Path(f"/proc/{worker}/stat").read_text().rpartition(")")[2].split()[1])
        threading.Timer(0.5, lambda: (os.kill(actor, signal.SIGKILL), go.touch())).start()
        order = f"wait {go}".encode()
        assert list(courier.exchange({"hosp-1": order}, DEADLINE)) == [("hosp-1", b"1 " + order)]
        assert pid_of(courier) != worker
        until_gone(worker)


def test_workers_end_with_the_courier_and_the_cluster_stays(tmp_path):
    with RayCourier(ECHO, tmp_path / "log", workers=1) as courier:
        worker = pid_of(courier)
    until_gone(worker)
    assert ray.is_initialized()


def test_a_worker_that_always_dies_is_an_error_in_words(tmp_path):
    log = tmp_path / "logs" / "workers.log"
    command = [sys.executable, "-c", "import sys; sys.exit('the data are gone')"]
    with (
        RayCourier(command, log, workers=1) as courier,
        pytest.raises(WorkerError, match=f"it died 3 times in a row .*; see {log}"),
    ):
        list(courier.exchange({"hosp-1": b"T"}, DEADLINE))
    assert log.read_text().count("the data are gone") == 3


def test_a_workers_own_error_reaches_the_user(tmp_path):
    puppet = [sys.executable, str(Path(__file__).with_name("puppet.py")), "!data.path: gone"]
    with (
        RayCourier(puppet, tmp_path / "log", workers=1) as courier,
        pytest.raises(WorkerError, match=r"^data\.path: gone$"),
    ):
        list(courier.exchange({"hosp-1": b"T"}, DEADLINE))


def test_workers_run_where_this_program_does_and_with_its_threads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    code = "import os; os.write(2, f'{os.getcwd()} {os.environ.get(\"OMP_NUM_THREADS\")}'.encode())"
    with (
        RayCourier([sys.executable, "-c", code], tmp_path / "log", workers=1) as courier,
        pytest.raises(WorkerError),
    ):
        list(courier.exchange({"hosp-1": b"T"}, DEADLINE))
    assert f"{tmp_path} None" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"workers": 10_000}, "workers: Ray's cluster has [0-9]+ CPUs; ask for [0-9]+ at most"),
        ({"device": "cuda"}, "device: cuda is not available in Ray's cluster"),
    ],
)
def test_what_the_cluster_has_not_is_refused_in_words(tmp_path, asked, words):
    with (
        pytest.raises(ValueError, match=words),
        RayCourier(ECHO, tmp_path / "log", **asked),
    ):
        pass


def test_a_cluster_without_machines_is_refused_in_words():
    """Its head may have neither CPU nor GPU until others have joined."""
    empty = SimpleNamespace(cluster_resources=dict)
    with pytest.raises(ValueError, match="has no CPU and no GPU; wait until"):
        ray_cluster._chosen(empty, None, "auto")


def pid_of(courier) -> int:
    ((_, pid),) = courier.exchange({"hosp-1": b"pid"}, DEADLINE)
    return int(pid)


def until_gone(pid: int) -> None:
    end = time.monotonic() + 60
    while Path(f"/proc/{pid}/cmdline").exists() and Path(f"/proc/{pid}/cmdline").read_text():
        assert time.monotonic() < end, "it lives on"
        time.sleep(0.02)
