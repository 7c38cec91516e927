"""Sites that serve through NVIDIA FLARE, and the coordinator's server, as they are run."""

import os
import signal
import socket
import subprocess
import threading
import time

import pytest

from federation.objects import SEEDED
from federation.small import SILOS
from silotune.federation.workers import SILOTUNE
from silotune.runtimes.nvflare import NvflareCourier
from silotune.runtimes.nvflare_loopback import LEAD, SERVER
from silotune.runtimes.nvflare_provision import Address, provision_all
from sites.daemons import ENVIRONMENT, Place, admitted, places, until
from sites.test_daemons import SAME, alive, charged
from sites.wire import federation, simulation, weights

pytest.importorskip("nvflare", reason="NVIDIA FLARE is not installed: silotune[nvflare]")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("one federation of NVIDIA FLARE"),
    pytest.mark.filterwarnings("default"),  # of FLARE's own
]


def silotune(*words: object) -> None:
    subprocess.run(
        [*SILOTUNE, *map(str, words)], env=os.environ | ENVIRONMENT, check=True, timeout=240
    )


class Killing:
    """Kills FLARE's client of the west at the second round."""

    def __init__(self, courier: NvflareCourier, west: Place) -> None:
        self.courier, self.west, self.rounds, self.killed = courier, west, 0, []

    def exchange(self, orders, deadline):
        orders = dict(orders.items())
        if next(iter(orders.values()))[:1] == b"T":
            self.rounds += 1
            if self.rounds == 2:
                threading.Thread(target=self._kill).start()
        yield from self.courier.exchange(orders, deadline)

    def _kill(self):
        time.sleep(0.1)
        for pid, command in self.west.tree().items():
            if "client_train" in command and "silotune_link.keep" not in command:
                self.killed.append(pid)
                os.kill(pid, signal.SIGKILL)


def test_a_run_over_flare_ends_in_the_bits_of_the_simulation(tmp_path, bert):
    changes = {"privacy": SEEDED, **SAME}
    simulation(tmp_path, bert, **changes).fit(tmp_path / "here", progress=False)
    with places(bert) as sites:
        near = sites["west"].home.parent
        admitted(near / "north", sites)
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
        address = Address("north", SERVER, port)
        kits = provision_all(near / "kits", address, LEAD, SILOS)
        silotune("federation", "harden", kits[SERVER], "--federation", near / "north")
        words = ["federation", "serve", str(kits[SERVER]), "--federation", str(near / "north")]
        with (near / "server.out").open("wb") as out:
            server = subprocess.Popen(
                [*SILOTUNE, *words],
                env=os.environ | ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
                umask=0o077,
            )
        try:
            for name, site in sites.items():
                silotune("site", "harden", kits[name], "--site", site.file)
                site.serve("--kit", str(kits[name]))
            asked = federation(bert, **changes)
            asked.offer_deadline = asked.round_deadline = 300.0
            with NvflareCourier(kits[LEAD], SILOS, near, poll=0.1) as courier:
                killing = Killing(courier, sites["west"])
                asked.fit(tmp_path / "there", courier=killing, progress=False)
            assert killing.killed
            for site in sites.values():
                assert len(charged(site, tmp_path / "there")) == 3
                tree = site.tree()
                site.process.send_signal(signal.SIGTERM)
                assert site.process.wait(timeout=120) == 143
                until(lambda tree=tree: not any(map(alive, tree)))
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(timeout=120)
    assert weights(tmp_path / "there") == weights(tmp_path / "here")
