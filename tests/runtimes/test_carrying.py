"""What every courier owes, in bytes. Whoever answers gives back what it is sent (``echo.py``)."""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimes.couriers import COURIERS, flower
from silotune.runtimes import Courier

NAMES = ("hosp-1", "hosp-2", "hosp-3")
ECHO = [sys.executable, str(Path(__file__).parents[1] / "link" / "echo.py")]
DEADLINE = 150.0

pytestmark = [pytest.mark.xdist_group("couriers"), pytest.mark.filterwarnings("default")]


@pytest.fixture(scope="module", params=COURIERS)
def courier(request, tmp_path_factory) -> Iterator[Courier]:
    with request.param(ECHO, NAMES, tmp_path_factory.mktemp("courier") / "place") as one:
        yield one


@pytest.fixture
def late(request) -> float:
    """Seconds in which whoever answers at once has answered."""
    return 40.0 if request.node.callspec.params["courier"] is flower else 5.0


@pytest.fixture
def go(tmp_path) -> Iterator[Path]:
    """Orders that wait for this file are answered at the latest when the test is over."""
    file = tmp_path / "go"
    yield file
    file.touch()


def fresh(text: bytes = b"") -> bytes:
    """No two orders are the same, or an answer that is kept would be enough."""
    return text + b"|" + os.urandom(8)


def carried(courier, orders) -> dict[str, bytes]:
    """Every answer, behind how often its process was asked."""
    answers = list(courier.exchange(orders, DEADLINE))
    assert sorted(client for client, _ in answers) == sorted(orders), "each answers once"
    return {client: answer.partition(b" ")[2] for client, answer in answers}


def test_each_answers_its_own_order_once(courier):
    orders = {name: fresh(name.encode()) for name in NAMES}
    assert carried(courier, orders) == orders


def test_only_who_is_asked_answers(courier):
    orders = {"hosp-2": fresh()}
    assert carried(courier, orders) == orders


@pytest.mark.parametrize("size", [0, (1 << 20) + 1, 12_000_000])
def test_orders_of_any_size_are_carried(courier, size):
    orders = {"hosp-1": os.urandom(size), "hosp-3": b""}
    assert carried(courier, orders) == orders


def test_an_order_may_be_brought_twice(courier):
    orders = {name: fresh(name.encode()) for name in NAMES}
    assert carried(courier, orders) == carried(courier, orders) == orders


def test_orders_may_be_made_when_they_are_looked_up(courier):
    class Made(dict):
        def __getitem__(self, client):
            return b"made for " + client.encode()

    assert carried(courier, Made.fromkeys(NAMES)) == {n: b"made for " + n.encode() for n in NAMES}


def test_who_is_late_is_left_out_at_the_deadline_and_answers_the_next_time(courier, go, late):
    carried(courier, {name: fresh() for name in NAMES})  # they are there
    orders = {"hosp-1": f"wait {go}".encode(), "hosp-2": fresh()}
    begun = time.monotonic()
    answers = dict(courier.exchange(orders, late))
    assert late <= time.monotonic() - begun < late + 5.0
    assert sorted(answers) == ["hosp-2"]
    go.touch()
    assert carried(courier, orders) == orders


def test_closing_gives_up_what_is_out(courier, go):
    answers = courier.exchange({"hosp-1": f"wait {go}".encode(), "hosp-2": fresh()}, DEADLINE)
    assert next(answers)[0] == "hosp-2"
    answers.close()
    go.touch()
    orders = {name: fresh() for name in NAMES}
    assert carried(courier, orders) == orders


def test_a_process_killed_at_an_order_is_started_again_with_it(courier, go):
    ((_, pid),) = courier.exchange({"hosp-1": fresh(b"pid")}, DEADLINE)
    threading.Timer(0.5, lambda: (os.kill(int(pid), signal.SIGKILL), go.touch())).start()
    orders = {name: f"wait {go}".encode() for name in NAMES}
    assert carried(courier, orders) == orders
