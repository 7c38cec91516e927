"""Sites as whole processes: whatever is killed at a site, the run ends in the same bits."""

import os
import signal
import threading
import time

import pytest

from federation.objects import SEEDED
from silotune.site.home import Home
from silotune.site.own_books import verify_own
from sites.daemons import Daemons, places, until
from sites.test_site import PRIVATE, lines, run_of
from sites.wire import federation, simulation, weights

SAME = {"micro_batch_size": 32}
"""What a site's file has no key for."""


class Killing(Daemons):
    """Kills the trainer of the west while it is at each order to train, once a round."""

    def __init__(self, places, delays):
        super().__init__(places)
        self.delays = list(delays)
        self.killed = []

    def carried(self, name, order):
        if name == "west" and order[:1] == b"T" and self.delays:
            west = self.places[name]
            self.killed.append(west.trainer)
            threading.Thread(target=self._kill, args=(west.trainer, self.delays.pop(0))).start()
        return super().carried(name, order)

    def _kill(self, pid, delay):
        time.sleep(delay)
        os.kill(pid, signal.SIGKILL)


def charged(place, folder) -> list[str]:
    return lines(Home(place.home).run(run_of(folder)) / "ledger.jsonl")


@pytest.mark.full  # at hand `link` kills trainers, and a site begins again before every order
@pytest.mark.parametrize("delays", [(0.05,), pytest.param((0.0, 0.1, 0.3), marks=pytest.mark.slow)])
def test_a_trainer_killed_in_the_middle_of_an_order(tmp_path, bert, delays):
    """The same answer, charged once; nobody else notices."""
    changes = {"privacy": SEEDED, **SAME}
    simulation(tmp_path, bert, **changes).fit(tmp_path / "here", progress=False)
    with places(bert) as sites:
        for site in sites.values():
            site.start()
        courier, folder = Killing(sites, delays), tmp_path / "there"
        until(lambda: all(site.trainer for site in sites.values()))
        federation(bert, **changes).fit(folder, courier=courier, progress=False)
        assert len(courier.killed) == len(delays)
        assert sites["west"].trainer not in courier.killed
        for site in sites.values():
            assert len(charged(site, folder)) == 3
    assert weights(folder) == weights(tmp_path / "here")


@pytest.mark.slow
def test_a_daemon_killed_after_it_was_charged(tmp_path, bert):
    """The answer is lost with it. The next one's trainer sends the round again, for nothing."""

    answers = []

    class Losing(Daemons):
        def carried(self, name, order):
            answer = super().carried(name, order)
            if name == "west" and order[:1] == b"T":
                self.places[name].kill()
                self.places[name].start()
                answers.append((answer, super().carried(name, order)))
                return answers[-1][1]
            return answer

    with places(bert) as sites:
        for site in sites.values():
            site.start()
        courier, folder = Losing(sites), tmp_path / "run"
        run = federation(bert, privacy=PRIVATE, rounds=2, **SAME).fit(
            folder, courier=courier, progress=False
        )
        assert len(answers) == 2
        assert len(charged(sites["west"], folder)) == 2
        assert run.privacy.verify().ok
        assert verify_own(Home(sites["west"].home), "west", run_of(folder)).ok


@pytest.mark.usefixtures("hearing")
def test_all_of_it_ends_with_the_daemon(bert):
    with places(bert, ("west",)) as sites:
        west = sites["west"]
        west.start()
        until(lambda: len(west.tree()) == 2)
        tree = west.tree()
        west.process.send_signal(signal.SIGTERM)
        assert west.process.wait(timeout=60) == 143
        until(lambda: not any(alive(pid) for pid in tree))


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
