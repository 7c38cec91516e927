"""Sites that serve through NVIDIA FLARE, and the coordinator's server, as they are run."""

import os
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from federation.objects import SEEDED
from silotune.cli.flare_server import SERVER_LOG
from silotune.federation.members import Members
from silotune.federation.workers import SILOTUNE
from silotune.runs.live import Doing, read_live
from silotune.runtimes.nvflare import NvflareCourier
from silotune.runtimes.nvflare_kits import Address, flare_name
from silotune.runtimes.nvflare_session import Engine
from sites.daemons import ENVIRONMENT, Place, admit, admitted, places, until
from sites.test_daemons import SAME, alive, charged
from sites.wire import federation, simulation, weights

pytestmark = [
    pytest.mark.skipif(
        find_spec("nvflare") is None, reason="NVIDIA FLARE is not installed: silotune[nvflare]"
    ),
    pytest.mark.engine,
    pytest.mark.timeout(900),
    pytest.mark.xdist_group("one federation of NVIDIA FLARE"),
    pytest.mark.filterwarnings("default"),  # of FLARE's own
]


class Killing:
    """Kills FLARE's client of the west at the second round."""

    def __init__(self, courier: NvflareCourier, west: Place) -> None:
        self.courier, self.west, self.rounds, self.killed = courier, west, 0, []

    def exchange(self, orders, deadline):
        orders = dict(orders.items())
        if next(iter(orders.values()))[:1] == b"T":
            self.rounds += 1
            if self.rounds == 2:
                threading.Timer(0.1, self.kill).start()
        yield from self.courier.exchange(orders, deadline)

    def kill(self):
        for pid, command in self.west.tree().items():
            if "client_train" in command and "silotune_link.keep" not in command:
                self.killed.append(pid)
                os.kill(pid, signal.SIGKILL)


@contextmanager
def server(members: Members) -> Iterator[None]:
    """``federation serve``, until the end."""
    words = [*SILOTUNE, "federation", "serve", "--federation", str(members.folder)]
    with (members.folder / "said").open("wb") as out:
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
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=120) == 143


def free_address() -> Address:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return Address("localhost", one.getsockname()[1])


def heard(members: Members) -> set[str]:
    """FLARE's names of those that are connected; nobody while the server is started again."""
    engine = Engine(members.flare.lead())
    try:
        return set(engine.last_heard())
    except (OSError, RuntimeError):
        return set()
    finally:
        engine.close()


@contextmanager
def serving(model: Path) -> Iterator[tuple[dict[str, Place], Members]]:
    """Two sites that are connected to their coordinator's server, all by the commands of each."""
    with places(model) as sites:
        near = next(iter(sites.values())).home.parent
        members = admitted(near / "north", sites, free_address())
        with server(members):
            for site in sites.values():
                site.serve()
            until(lambda: heard(members) == members.flare_names())
            yield sites, members


def over(members: Members, folder: Path) -> NvflareCourier:
    return NvflareCourier(members.flare.lead(), members.public_keys(), folder, poll=0.1)


@pytest.mark.full
def test_a_run_over_flare_ends_in_the_bits_of_the_simulation(tmp_path, bert):
    changes = {"privacy": SEEDED, **SAME}
    simulation(tmp_path, bert, **changes).fit(tmp_path / "here", progress=False)
    with serving(bert) as (sites, members):
        asked = federation(bert, **changes)
        asked.offer_deadline = asked.round_deadline = 300.0
        with over(members, tmp_path / "engine") as courier:
            asked.fit(tmp_path / "there", courier=courier, progress=False)
        for site in sites.values():
            assert len(charged(site, tmp_path / "there")) == 3
    assert weights(tmp_path / "there") == weights(tmp_path / "here")
    live = read_live(tmp_path / "there" / "live.json")
    assert {(site.doing, site.order, site.connected) for site in live.sites.values()} == {
        (Doing.IDLE, "finish", True)
    }


@pytest.mark.slow
def test_a_site_whose_client_is_killed_and_who_is_revoked_then(tmp_path, bert):
    """The run ends in the same bits; who is revoked is kept out until it has another key."""
    changes = {"privacy": SEEDED, **SAME}
    simulation(tmp_path, bert, **changes).fit(tmp_path / "here", progress=False)
    with serving(bert) as (sites, members):
        west, keys = sites["west"], members.public_keys()
        old = {name: flare_name(name, keys[name]) for name in sites}
        asked = federation(bert, **changes)
        asked.offer_deadline = asked.round_deadline = 300.0
        with over(members, tmp_path / "engine") as courier:
            killing = Killing(courier, west)
            asked.fit(tmp_path / "there", courier=killing, progress=False)
            assert killing.killed
            assert weights(tmp_path / "there") == weights(tmp_path / "here")
            for site in sites.values():
                assert len(charged(site, tmp_path / "there")) == 3
            members.revoke("west")
            until(lambda: heard(members) == {old["east"]})
            killing.kill()
            until(lambda: f"Reject disabled client registration: {old['west']}" in said(members))
            assert heard(members) == {old["east"]}
            answers = courier.exchange({"east": b"?", "west": b"?"}, 60.0)
            assert [site for site, _ in answers] == ["east"], "and it did not wait for west"
            tree = west.tree()
            west.process.send_signal(signal.SIGTERM)
            assert west.process.wait(timeout=120) == 143
            until(lambda: not any(map(alive, tree)))
            admit(members, west)
            shutil.rmtree(west.home / "flare")
            west.serve()
            new = flare_name("west", keys["west"])
            assert new != old["west"]
            until(lambda: heard(members) == {old["east"], new})
            both = dict(courier.exchange({"east": b"?", "west": b"?"}, 120.0))
            assert both.keys() == {"east", "west"}


def said(members: Members) -> str:
    """By FLARE's server, which says nothing on the screen."""
    assert "INFO" not in (members.folder / "said").read_text()
    return (members.flare.work / SERVER_LOG).read_text()
