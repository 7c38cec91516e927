"""A network that is cut in the middle of a round, and healed: a site in a namespace of its own.

The site reaches the coordinator's server through one pair of virtual devices, which is taken down:
no connection is closed, and whatever is sent is lost.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec

import pytest

from federation.objects import SEEDED
from sites.daemons import ENVIRONMENT, admitted, places, until
from sites.test_daemons import SAME, charged
from sites.test_serving_flare import free_address, heard, over, server
from sites.wire import federation, simulation, weights

pytestmark = [
    pytest.mark.skipif(
        find_spec("nvflare") is None, reason="NVIDIA FLARE is not installed: silotune[nvflare]"
    ),
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("one federation of NVIDIA FLARE"),
    pytest.mark.filterwarnings("default"),  # of FLARE's own
]

CUT = 25.0
"""Seconds: longer than a task of FLARE waits, so that the site counts as lost."""

NEAR, FAR = "10.231.7.1", "10.231.7.2"

RELAY = """
import socket, sys, threading
def pump(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
    except OSError:
        pass
    for one in (a, b):
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
here, there = ((host, int(port)) for host, port in (a.split(":") for a in sys.argv[1:]))
with socket.create_server(here) as listener:
    while True:
        one = listener.accept()[0]
        try:
            other = socket.create_connection(there, timeout=10)
        except OSError:
            one.close()
            continue
        other.settimeout(None)
        for pair in ((one, other), (other, one)):
            threading.Thread(target=pump, args=pair, daemon=True).start()
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


class Namespace:
    """A network of its own, and one way out of it."""

    def __init__(self) -> None:
        self.name, self.near = f"silo{os.getpid()}", f"sn{os.getpid()}"
        self.inside = ["ip", "netns", "exec", self.name]

    def cut(self) -> None:
        ip("link", "set", self.near, "down")

    def heal(self) -> None:
        ip("link", "set", self.near, "up")


@contextmanager
def namespace():
    """Skips where it may not be made."""
    found = Namespace()
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("a network namespace needs root, and the ip command")
    try:
        ip("netns", "add", found.name)
    except subprocess.CalledProcessError:
        pytest.skip("this machine lets nobody make network namespaces")
    try:
        far = ["-n", found.name]
        ip("link", "add", found.near, "type", "veth", "peer", "name", "out", "netns", found.name)
        ip("addr", "add", f"{NEAR}/30", "dev", found.near)
        ip(*far, "addr", "add", f"{FAR}/30", "dev", "out")
        for words in (
            ["link", "set", found.near, "up"],
            [*far, "link", "set", "out", "up"],
            [*far, "link", "set", "lo", "up"],
        ):
            ip(*words)
        yield found
    finally:
        ip("netns", "del", found.name)


@contextmanager
def running(words, said):
    """A process that is told to end."""
    with said.open("ab") as out:
        process = subprocess.Popen(
            words,
            env=os.environ | ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            umask=0o077,
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=120)


class Cutting:
    """Cuts the network when the second round is under way, and heals it."""

    transport = "nvflare"

    def __init__(self, courier, network) -> None:
        self.courier, self.network, self.rounds, self.healed = courier, network, 0, False

    def exchange(self, orders, deadline):
        orders = dict(orders.items())
        if next(iter(orders.values()))[:1] == b"T":
            self.rounds += 1
            if self.rounds == 2:
                threading.Thread(target=self._cut).start()
        yield from self.courier.exchange(orders, deadline)

    def _cut(self):
        time.sleep(0.1)
        self.network.cut()
        time.sleep(CUT)
        self.network.heal()
        self.healed = True


def test_a_network_that_is_cut_in_the_middle_of_a_round_and_healed(tmp_path, bert):
    """The same bits as without, and every round charged once."""
    changes = {"privacy": SEEDED, **SAME}
    simulation(tmp_path, bert, **changes).fit(tmp_path / "here", progress=False)
    with ExitStack() as stack:
        network = stack.enter_context(namespace())
        sites = stack.enter_context(places(bert))
        near = sites["west"].home.parent
        address = free_address()
        members = admitted(near / "north", sites, address)
        stack.enter_context(server(members))
        relay = [sys.executable, "-c", RELAY]
        port, relayed = address.port, free_address().port
        ends = [f"127.0.0.1:{port}", f"{NEAR}:{relayed}"]
        stack.enter_context(running([*relay, ends[1], ends[0]], near / "relay.out"))
        stack.enter_context(running([*network.inside, *relay, *ends], near / "relay.out"))
        for name, site in sites.items():
            site.popen([*(network.inside if name == "west" else ()), *site.serving])
        until(lambda: heard(members) == members.flare_names())
        asked = federation(bert, **changes)
        asked.offer_deadline = asked.round_deadline = 300.0
        with over(members, tmp_path / "engine") as courier:
            cutting = Cutting(courier, network)
            asked.fit(tmp_path / "there", courier=cutting, progress=False)
        assert cutting.healed, "the round waited for the site"
        for site in sites.values():
            assert len(charged(site, tmp_path / "there")) == 3
            site.process.send_signal(signal.SIGTERM)
        until(lambda: all(site.process.poll() is not None for site in sites.values()))
    assert weights(tmp_path / "there") == weights(tmp_path / "here")
