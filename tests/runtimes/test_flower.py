"""Over real processes of Flower, with TLS and keys of nodes: a round, kill -9, and strangers' code.

The first is for every day; the others take minutes, as every message of Flower takes seconds.
"""

import os
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimes.couriers import doors, near_the_root
from runtimes.parties import COORDINATOR, FEDERATION, member
from silotune.runtimes.flower import FlowerCourier

pytest.importorskip("flwr", reason="Flower is not installed: silotune[flower]")

from silotune.runtimes.flower_loopback import SERVER, FlowerLoopback

NAMES = ("hosp-1", "hosp-2")
ECHO = [sys.executable, str(Path(__file__).parents[1] / "link" / "echo.py")]
DEADLINE = 280.0

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("flower"),
    pytest.mark.filterwarnings("default"),  # of Flower's own
]


class Federation:
    """What runs, and the sites' sockets."""

    def __init__(self, near: Path, flower: FlowerLoopback, sockets: dict[str, Path]) -> None:
        self.near, self.flower, self.sockets = near, flower, sockets

    def courier(self) -> FlowerCourier:
        public = {name: member(name).public for name in NAMES}
        home, place = self.flower.home, self.near / "run"
        return FlowerCourier(home, FEDERATION, COORDINATOR, public, place, wait=5.0)


@pytest.fixture(scope="module")
def federation() -> Iterator[Federation]:
    with (
        near_the_root() as near,
        doors(ECHO, NAMES, near) as sockets,
        FlowerLoopback(near / "flower", sockets) as flower,
    ):
        yield Federation(near, flower, sockets)


def fresh(names=NAMES) -> dict[str, bytes]:
    return {name: name.encode() + os.urandom(8) for name in names}


def carried(courier, orders) -> dict[str, bytes]:
    answers = courier.exchange(orders, DEADLINE)
    return {name: answer.partition(b" ")[2] for name, answer in answers}


@pytest.mark.full
def test_every_site_answers_its_own_order(federation):
    with federation.courier() as courier:
        orders = fresh() | {"hosp-1": os.urandom((1 << 20) + 1)}
        assert carried(courier, orders) == orders


@pytest.mark.slow
def test_who_works_for_long_is_asked_again_and_its_process_once(federation, tmp_path):
    go = tmp_path / "go"
    order = f"wait {go}".encode()
    threading.Timer(25.0, go.touch).start()
    with federation.courier() as courier:
        ((name, answer),) = courier.exchange({"hosp-1": order}, DEADLINE)
    assert (name, answer.partition(b" ")[2]) == ("hosp-1", order)


@pytest.mark.slow
def test_a_supernode_that_is_killed_at_an_order_is_asked_again_when_it_is_back(
    federation, tmp_path
):
    go = tmp_path / "go"
    orders = {"hosp-1": f"wait {go}".encode(), **fresh(("hosp-2",))}
    with federation.courier() as courier:

        def kill() -> None:
            time.sleep(15)
            federation.flower.kill("hosp-1")
            go.touch()
            time.sleep(90)  # Flower lets it in when it has missed two heartbeats
            federation.flower.start("hosp-1")

        threading.Thread(target=kill).start()
        assert carried(courier, orders) == orders


@pytest.mark.slow
def test_a_superlink_that_is_killed_is_given_another_run(federation):
    with federation.courier() as courier:
        carried(courier, fresh())
        federation.flower.kill(SERVER)
        federation.flower.start(SERVER)
        orders = fresh()
        assert carried(courier, orders) == orders


STRANGER = """\
import os
from pathlib import Path
from flwr.app import ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import ServerApp
from silotune_link.daemon import ask

PLACE = Path({place!r})
server_app = ServerApp()
client_app = ClientApp()


@client_app.train()
def order(message, context):
    (PLACE / "ran").touch()
    try:
        (PLACE / "heard").write_bytes(ask(Path(context.node_config["socket"]), b"T"))
    except ConnectionError:
        (PLACE / "silence").touch()
    return Message(RecordDict({{"head": ConfigRecord({{"state": "answer"}})}}), reply_to=message)


@server_app.main()
def main(grid, context):
    content = RecordDict({{"head": ConfigRecord({{"state": "order"}})}})
    grid.push_messages([Message(content, node, "train") for node in grid.get_node_ids()])
    while not (PLACE / "silence").exists() and not (PLACE / "heard").exists():
        pass
"""


@pytest.mark.slow
def test_a_strangers_code_runs_at_a_site_and_hears_nothing_there(federation, tmp_path):
    """Whoever has the certificate that every site has: so says the guide of sites."""
    app = tmp_path / "app"
    (app / "stranger").mkdir(parents=True)
    (app / "stranger" / "__init__.py").write_text(STRANGER.format(place=str(tmp_path)))
    (app / "pyproject.toml").write_text(
        """\
[project]
name = "stranger"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "stranger"
[tool.flwr.app.components]
serverapp = "stranger:server_app"
clientapp = "stranger:client_app"
"""
    )
    federation.flower.command("run", str(app))
    end = time.monotonic() + 120
    while not (tmp_path / "silence").exists():
        assert time.monotonic() < end
        assert not (tmp_path / "heard").exists()
        time.sleep(0.1)
    assert (tmp_path / "ran").exists()
