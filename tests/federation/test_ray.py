"""A run over a Ray cluster is that of one process, whatever is killed of it."""

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from federation.objects import SEEDED, federation
from federation.test_load import write_tables
from federation.test_objects import SIZES, adapters, certificate

pytest.importorskip("ray", reason="Ray is not installed: silotune[ray]")

pytestmark = [
    pytest.mark.full,
    pytest.mark.engine,
    pytest.mark.xdist_group("couriers"),
    pytest.mark.filterwarnings("default"),  # of Ray's own
]


def test_actors_killed_in_a_round_change_no_bit_and_charge_nothing_twice(bert, tmp_path):
    one = {
        "clients": write_tables(tmp_path),
        "privacy": SEEDED,
        "num_examples": SIZES,
        "threads": 1,
        "device": "cpu",
        "rounds": 3,
    }
    federation(bert, **one).fit(tmp_path / "here")
    rounds = federation(bert, **one, runtime="ray").rounds(tmp_path / "there")
    next(rounds)  # it is open
    killed = []

    def kill_as_it_charges() -> None:
        ledger = tmp_path / "there" / "sites" / "east" / "ledger.jsonl"
        while not ledger.exists() or ledger.read_text().count("\n") < 2:
            time.sleep(0.001)
        for pid in actors():
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    killer = threading.Thread(target=kill_as_it_charges)
    killer.start()
    list(rounds)
    killer.join()
    assert len(killed) == 2
    assert adapters(tmp_path / "there") == adapters(tmp_path / "here")
    assert certificate(tmp_path / "there") == certificate(tmp_path / "here")


def actors() -> list[int]:
    """Processes of actors in the cluster that this one has started."""
    parents, found = {}, []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(entry.name)] = int(
                (entry / "stat").read_text().rpartition(")")[2].split()[1]
            )
            if (entry / "cmdline").read_bytes().startswith(b"ray::Actor"):
                found.append(int(entry.name))

    def ours(pid: int) -> bool:
        return pid == os.getpid() or (pid in parents and ours(parents[pid]))

    return [pid for pid in found if ours(pid)]
