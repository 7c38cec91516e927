"""``site serve`` as it is run: a tree of processes that answers, ends whole, tells who it is."""

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from federation.objects import SEEDED
from silotune.keys import fingerprint, public_of
from silotune.runtimes import FolderCourier
from silotune.runtimes.messages import OFFER, message, opened
from sites.daemons import ENVIRONMENT, admitted, places, until
from sites.offers import offer
from sites.test_daemons import SAME, alive, charged
from sites.wire import federation, simulation, weights


def courier(root: Path, members) -> FolderCourier:
    return FolderCourier(root, members.federation, members.key, members.public_keys())


class Killing:
    """Kills all of the west, once, while it is at the second round, and serves again."""

    def __init__(self, courier, sites, root):
        self.courier, self.west, self.root = courier, sites["west"], root
        self.rounds, self.killed = 0, []

    def exchange(self, orders, deadline):
        orders = dict(orders.items())
        if next(iter(orders.values()))[:1] == b"T":
            self.rounds += 1
            if self.rounds == 2:
                threading.Thread(target=self._kill).start()
        yield from self.courier.exchange(orders, deadline)

    def _kill(self):
        time.sleep(0.15)
        self.killed = list(self.west.tree())
        self.west.kill()
        self.west.serve("--folder", str(self.root))


def daemon_of(site) -> int:
    [pid] = [
        pid
        for pid, command in site.tree().items()
        if "-m silotune_link.daemon" in command and "silotune_link.keep" not in command
    ]
    return pid


@pytest.mark.slow
def test_two_sites_that_serve_a_folder(tmp_path, bert):
    """One of them is killed whole; the run ends in the bits of the simulation, charged once."""
    changes = {"privacy": SEEDED, **SAME}
    simulation(tmp_path, bert, **changes).fit(tmp_path / "here", progress=False)
    with places(bert) as sites:
        members, root = admitted(tmp_path / "fed", sites), tmp_path / "stick"
        for site in sites.values():
            site.serve("--folder", str(root))
        asked = federation(bert, **changes)
        asked.offer_deadline = asked.round_deadline = 240.0
        with courier(root, members) as folder:
            killing = Killing(folder, sites, root)
            asked.fit(tmp_path / "there", courier=killing, progress=False)
        assert len(killing.killed) == 4, "serve, what keeps the daemon, the daemon, the trainer"
        for site in sites.values():
            assert len(charged(site, tmp_path / "there")) == 3
    assert weights(tmp_path / "there") == weights(tmp_path / "here")


@pytest.mark.full
@pytest.mark.usefixtures("hearing")
def test_it_tells_who_it_is_what_is_asked_and_ends_whole(tmp_path, bert):
    with places(bert, ("west",)) as sites:
        west, root = sites["west"], tmp_path / "stick"
        members = admitted(tmp_path / "fed", sites)
        west.allow("approve: any", "approve: each")
        west.serve("--folder", str(root))
        asked = offer(participants=("east", "west"))
        with courier(root, members) as folder:
            orders = {"west": message(OFFER, {"attempt": 0}, asked.to_bytes())}
            [(_, answer)] = folder.exchange(orders, 240.0)
            assert opened(answer).kind == b"N"
            os.kill(daemon_of(west), signal.SIGKILL)
            assert list(folder.exchange(orders, 240.0)) == [("west", answer)]
        assert "silotune_link.daemon has ended (code -9); it is started again" in west.said()
        until(lambda: f"look at it: silotune site show {asked.run}" in west.said())
        assert fingerprint(public_of(members.key)) in west.said()
        second = subprocess.run(
            west.serving,
            env=os.environ | ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert second.returncode == 1
        assert f"process {west.process.pid} on " in second.stderr
        tree = west.tree()
        assert len(tree) == 4
        west.process.send_signal(signal.SIGTERM)
        assert west.process.wait(timeout=60) == 143
        until(lambda: not any(map(alive, tree)))
        assert "stopped: interrupted by SIGTERM" in west.said()
        assert "Traceback" not in west.said()
