"""A crowd waits for the disk together, and each client's steps are what they are alone."""

import math
import os
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from silotune.core import durable
from silotune.engine import crowd, crowd_round
from silotune.engine.client_errors import FAILED
from silotune.engine.loop import make_tasks
from silotune.optim import SGD
from silotune.privacy import Discrete, ExampleLevel, NoPrivacy, Poisson
from silotune.privacy.ledger.chain import read_ledger
from silotune.runtimes import Crowds, crowds
from toys import agreed, axes, begin, experiment, silos, trainer

HIDDEN = ExampleLevel(
    sampling=Poisson(0.4), noise=Discrete(1.0), max_grad_norm=0.4, expected_batch_size=3.0
)


def crowd_of(place, clients=4):
    """Tasks of the first round, a trainer, and clients that hide their records."""
    a = axes("ffa-lora", SGD(lr=0.3))
    own = {n: replace(s, privacy=HIDDEN) for n, s in silos(clients, home=place).items()}
    exp = experiment(a, sorted(own), private=True)
    return make_tasks(exp, sorted(own), begin(a)), trainer(a), agreed(exp, own)


@pytest.fixture
def disk(monkeypatch) -> dict[Path, object]:
    """What files held, and folders named, when they were last brought to the disk."""
    held: dict[Path, object] = {}
    settle = durable.settle

    def seen(written):
        settle(written)
        held.update({path: told(path) for path in written.paths})

    monkeypatch.setattr(durable, "settle", seen)
    return held


def told(path: Path) -> object:
    return sorted(p.name for p in path.iterdir()) if path.is_dir() else path.read_bytes()


def test_each_step_is_on_the_disk_before_the_next(tmp_path, disk, monkeypatch):
    tasks, local, clients = crowd_of(tmp_path)
    homes = [client.home for client in clients.values()]
    train, settle_all = crowd.train_together, durable.settle_all

    def together(trainings, trainer):
        assert len(trainings) == len(homes)
        for home in homes:
            assert disk[home / "orders"] == told(home / "orders") == ["law.json"]
        return train(trainings, trainer)

    waits = []

    def all_at_once(each):
        for path in (path for written in each for path in written.paths):
            if path.name == "ledger.jsonl":
                [draft] = (path.parent / "sent").iterdir()
                assert disk[draft] == draft.read_bytes()
                assert disk[draft.parent] == [draft.name]
        waits.append(len(each))
        return settle_all(each)

    monkeypatch.setattr(crowd, "train_together", together)
    monkeypatch.setattr(crowd, "settle_all", all_at_once)
    for update in crowd_round(tasks, local, clients):
        ledger = clients[update.client].home / "ledger.jsonl"
        assert update.sealed
        assert disk[ledger] == ledger.read_bytes()
        assert len(read_ledger(ledger)) == 1
    assert waits == [len(homes)] * 4


@pytest.mark.parametrize("lost", ["law.json", "round-000000.draft", "ledger.jsonl"])
def test_a_full_disk_is_told_by_the_client_whose_it_is(lost, tmp_path, monkeypatch):
    tasks, local, clients = crowd_of(tmp_path)
    settle, full = durable.settle, [True]

    def sometimes(written):
        names = {path.name.removeprefix(".").removesuffix(".tmp") for path in written.paths}
        if full[0] and lost in names and tmp_path / "silo-2" in written.paths[0].parents:
            raise OSError(28, "No space left on device")
        settle(written)

    monkeypatch.setattr(durable, "settle", sometimes)
    found = {update.client: update for update in crowd_round(tasks, local, clients)}
    assert {name: update.refusal for name, update in found.items()} == {
        name: FAILED if name == "silo-2" else "" for name in clients
    }
    assert [len(charges(clients[name])) for name in sorted(clients)] == [1, 1, 0, 1]
    full[0] = False
    again = {update.client: update for update in crowd_round(tasks, local, clients)}
    assert {name for name, update in again.items() if update.resent} == set(clients) - {"silo-2"}
    assert [len(charges(clients[name])) for name in sorted(clients)] == [1, 1, 1, 1]


def charges(client):
    return read_ledger(client.home / "ledger.jsonl")


def test_a_crowd_of_more_files_than_a_process_may_have_is_refused(tmp_path, monkeypatch):
    """Each would hold a lock, and those that came too late would fail in every round."""
    _, local, clients = crowd_of(tmp_path)
    monkeypatch.setattr(crowds, "_open_files", lambda: crowds.FILES + 3)
    with pytest.raises(ValueError, match=r"^crowd: 4 silos .* may have 103; set it to 3 or less"):
        Crowds(local, clients, 40)
    Crowds(local, clients, 3)
    open_ones = {name: replace(c, privacy=NoPrivacy(batch_size=4)) for name, c in clients.items()}
    Crowds(local, open_ones, 40)


def test_the_limit_of_files_is_the_systems():
    resource = pytest.importorskip("resource")
    assert crowds._open_files() in (resource.getrlimit(resource.RLIMIT_NOFILE)[0], math.inf)


KILLED = """
    import os, sys
    from pathlib import Path
    from engine.test_crowd_on_disk import charges, crowd_of
    from silotune.engine import crowd_round

    REAL = {name: getattr(os, name) for name in ("write", "fsync", "replace", "unlink")}

    def dies(place, at, told):
        calls = 0
        def trapped(name):
            def call(*arguments, **named):
                nonlocal calls
                if arguments[0] == told:
                    return REAL[name](*arguments)
                calls += 1
                if calls == at:
                    if name == "write":
                        REAL[name](arguments[0], arguments[1][: len(arguments[1]) // 2])
                    os._exit(9)
                return REAL[name](*arguments, **named)
            return call
        tasks, trainer, clients = crowd_of(place, 2)
        for name in REAL:
            setattr(os, name, trapped(name))
        for update in crowd_round(tasks, trainer, clients):
            assert update.sealed
            os.write(told, update.client[-1].encode())
        os._exit(0)

    for at in range(1, 100):
        place = Path(sys.argv[1]) / str(at)
        out, told = os.pipe()
        child = os.fork()
        if child == 0:
            dies(place, at, told)
        ended = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        assert ended in (0, 9)
        os.close(told)
        heard = {f"silo-{number}" for number in os.read(out, 9).decode()}
        tasks, trainer, clients = crowd_of(place, 2)
        paid = {n for n, c in clients.items() if (c.home / "ledger.jsonl").exists() and charges(c)}
        assert heard <= paid, (at, heard, paid)
        found = {update.client: update for update in crowd_round(tasks, trainer, clients)}
        assert all(update.sealed for update in found.values()), at
        assert {n for n, update in found.items() if update.resent} >= paid, at
        assert [len(charges(c)) for c in clients.values()] == [1, 1], at
        print(at, len(paid), len(heard), flush=True)
        if ended == 0:
            break
"""


def test_a_crowd_killed_at_any_step_charges_each_client_once(tmp_path):
    here = os.pathsep.join([str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path)],
        env={
            **os.environ,
            "PYTHONPATH": here,
            "OMP_NUM_THREADS": "1",
        },  # a fork has no other threads
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    steps = [tuple(map(int, line.split())) for line in run.stdout.splitlines()]
    assert len(steps) > 20
    assert steps[0][1:] == (0, 0)
    assert steps[-1][1:] == (2, 2)
    assert any(paid == 1 for _, paid, _ in steps), "between the two charges"
    assert any(paid > heard for _, paid, heard in steps), "between a charge and its message"
