"""Clients that train together end where each would have ended by itself, and stay strangers."""

from dataclasses import dataclass, replace

import pytest
import torch

from covering import every_combination, every_point, fitting
from silotune.core import ClientId, ClientUpdate
from silotune.engine import crowd_round, federate
from silotune.engine.channel import open_sealed
from silotune.engine.client_errors import FAILED
from silotune.engine.loop import make_tasks
from silotune.optim import SGD, AdamW
from silotune.privacy import (
    Correlated,
    Discrete,
    ExampleLevel,
    Gaussian,
    Poisson,
    Rotation,
    SiloStore,
)
from silotune.privacy.ledger.ledger import Ledger
from silotune.privacy.ledger.store import LEDGER
from silotune.runtimes import Crowds, InProcess
from toys import CLASSIFY, Notes, adapter, agreed, axes, begin, experiment, silos, trainer

CLIENTS = 5

pytestmark = pytest.mark.usefixtures("double_precision")


def crowdable(method: str) -> bool:
    adapters = axes(method, fitting(method)[0]).adapter
    return adapters is None or adapters.crowdable


def hidden(noise, seed: int = 3) -> ExampleLevel:
    """Of a silo whose coins and noise can be drawn twice, so that two runs can be compared."""
    sampling = Rotation(2) if isinstance(noise, Correlated) else Poisson(0.4)
    return ExampleLevel(
        sampling=sampling,
        noise=noise,
        max_grad_norm=0.4,
        expected_batch_size=3.0,
        insecure_seed=seed,
    )


def members(tmp_path, noise=None, name="clients"):
    """Silos of unequal sizes; each with a mechanism of its own, if there is one."""
    own = silos(CLIENTS, home=tmp_path / name)
    if noise is None:
        return own
    return {c: replace(s, privacy=hidden(noise, i)) for i, (c, s) in enumerate(own.items())}


def end(a, runtime, **changes):
    exp = experiment(a, runtime.clients(), **changes)
    if any(silo.privacy.private for silo in runtime.silos.values()):
        runtime = replace(runtime, silos=agreed(exp, runtime.silos))
    return list(federate(exp, runtime, begin(a)))[-1].state


def gap(one, other) -> float:
    """The largest difference of two states, of tensors of equal keys."""
    assert one.factors.keys() == other.factors.keys()
    return max(float((t - other.factors[k]).abs().max()) for k, t in one.factors.items())


@every_point((0, 3))
def test_a_crowd_ends_where_one_by_one_does(method, optimizer, tmp_path):
    if not crowdable(method):
        pytest.skip("its adapter claims no crowds")
    a = axes(method, optimizer)
    alone = end(a, InProcess(trainer(a), members(tmp_path, name="alone")))
    for at_once in (2, CLIENTS):
        crowd = end(a, Crowds(trainer(a), members(tmp_path, name=str(at_once)), at_once))
        assert gap(crowd, alone) < 1e-9


@every_point((1, 3))
def test_a_crowd_that_hides_its_records_ends_where_one_by_one_does(method, optimizer, tmp_path):
    if not crowdable(method):
        pytest.skip("its adapter claims no crowds")
    a, ends = axes(method, optimizer), []
    for name, kind in (("alone", InProcess), ("crowd", lambda t, own: Crowds(t, own, CLIENTS))):
        own = members(tmp_path, Gaussian(0.7), name)
        ends.append(end(a, kind(trainer(a), own), private=True, rounds=1))
    assert gap(*ends) < 1e-9


NOISES = {"gaussian": Gaussian(1.0), "discrete": Discrete(1.0), "correlated": Correlated(0.8, 2)}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("method", ["ffa-lora", "fedit"])
def test_hidden_clients_keep_their_own_coins_noise_and_charges(method, noise, tmp_path):
    a, found = axes(method, SGD(lr=0.3)), []
    for name, at_once in (("alone", 1), ("crowd", 3)):
        own = members(tmp_path, NOISES[noise], name)
        runtime = Crowds(trainer(a), own, 3) if at_once > 1 else InProcess(trainer(a), own)
        found.append(end(a, runtime, private=True))
    assert gap(*found) < 1e-9
    for client in silos(CLIENTS):
        lines = [charges(tmp_path / name / client) for name in ("alone", "crowd")]
        assert len(lines[0]) == 3
        assert lines[0] == lines[1]


def charges(home) -> list[object]:
    with SiloStore(home, Ledger(home / LEDGER)) as store:
        entries = store.entries("law")
    return [(e.silo, e.round, e.attempt, e.charge, e.max_grad_norm) for e in entries]


@every_combination(method=("ffa-lora", "fedit", "rolora"), noise=(None, "gaussian", "discrete"))
def test_the_same_crowds_twice_end_in_the_same_bits(method, noise, tmp_path):
    a, ends = axes(method, AdamW(lr=0.02)), []
    for name in ("one", "two"):
        own = members(tmp_path, NOISES.get(noise), name)
        ends.append(end(a, Crowds(trainer(a), own, 3), private=noise is not None))
    assert ends[0].factors.digest() == ends[1].factors.digest()


@every_combination(
    optimizer=(SGD(lr=0.3), SGD(lr=0.3, momentum=0.9, weight_decay=0.1), AdamW(lr=0.02)),
    noise=(None, *NOISES),
)
def test_one_optimiser_of_all_ends_where_one_of_each_does(optimizer, noise, tmp_path, monkeypatch):
    """Bit for bit: numbers that move by themselves move alike wherever they stand."""
    a, ends = axes("fedit", optimizer), []
    for name in ("of all", "of each"):
        own = members(tmp_path, NOISES.get(noise), name)
        ends.append(end(a, Crowds(trainer(a), own, 3), private=noise is not None))
        monkeypatch.setattr(type(optimizer), "by_number", False)
    assert ends[0].factors.digest() == ends[1].factors.digest()


def test_two_halves_of_a_crowds_run_make_a_whole(tmp_path):
    a = axes("fedit", SGD(lr=0.3))
    whole = end(a, Crowds(trainer(a), members(tmp_path, name="whole"), 3))
    same = Crowds(trainer(a), members(tmp_path, name="halves"), 3)
    first = end(a, same, rounds=1)
    exp = experiment(a, same.clients())
    resumed = list(federate(exp, Crowds(trainer(a), same.silos, 3), first))[-1].state
    assert whole.factors.digest() == resumed.factors.digest()


def updates(a, own, at_once=CLIENTS, **changes) -> dict[ClientId, ClientUpdate]:
    """What every client sends in the first round."""
    exp = experiment(a, sorted(own), private=True, **changes)
    tasks = make_tasks(exp, sorted(own), begin(a))
    runtime = Crowds(trainer(a), agreed(exp, own), at_once)
    return {update.client: update for update in runtime.train(tasks)}


def with_record(client, ids):
    """A client whose first record is another."""
    return replace(client, train=Notes((ids, *client.train.ids[1:])))


@every_combination(method=("ffa-lora", "fedit"), noise=("gaussian", "discrete"))
def test_a_record_changes_what_its_own_client_sends_and_nothing_else(method, noise, tmp_path):
    a = axes(method, SGD(lr=0.3))
    always = {"sampling": Poisson(1.0), "insecure_seed": 1}
    sent = []
    for name, ids in (("before", (1, 2, 3, 4)), ("after", (9, 8, 7, 6))):
        own = members(tmp_path, NOISES[noise], name)
        own = {c: replace(s, privacy=replace(s.privacy, **always)) for c, s in own.items()}
        own[ClientId("silo-1")] = with_record(own[ClientId("silo-1")], ids)
        sent.append({c: update.sealed for c, update in updates(a, own).items()})
    before, after = sent
    assert {c for c in before if before[c] != after[c]} == {"silo-1"}


@dataclass(frozen=True)
class Broken(Notes):
    """Records that cannot be read, or whose tokens no model knows."""

    how: str = "unread"

    def batch(self, indices):
        if self.how == "unread":
            raise OSError("a secret of this record")
        found = dict(super().batch(indices))
        found["input_ids"] = found["input_ids"] + 99
        return found


@pytest.mark.parametrize("how", ["unread", "unknown"])
def test_a_client_that_fails_fails_alone(how, tmp_path, caplog):
    a = axes("ffa-lora", SGD(lr=0.3))
    own = members(tmp_path, NOISES["gaussian"])
    bad = own[ClientId("silo-2")]
    own[ClientId("silo-2")] = replace(bad, train=Broken(bad.train.ids, how))
    found = updates(a, own)
    assert {c: bool(u.sealed) for c, u in found.items()} == {c: c != "silo-2" for c in own}
    assert found[ClientId("silo-2")].refusal == FAILED
    assert "secret" not in caplog.text


def test_one_records_infinite_gradient_is_dropped_and_reaches_no_other_client(tmp_path):
    """The sum of a client is a product over the rows of all, and 0 times infinity is no number."""
    a = axes("ffa-lora", SGD(lr=0.3))
    own = members(tmp_path, NOISES["gaussian"])
    t = replace(trainer(a), objective=Exploding())
    exp = experiment(a, sorted(own), private=True)
    tasks = make_tasks(exp, sorted(own), begin(a))
    found = list(crowd_round(tasks, t, agreed(exp, own)))
    assert all(update.sealed for update in found)
    assert any((silo.home / "dropped.jsonl").exists() for silo in own.values())
    for update in found:
        shared = open_sealed(update, tasks[0].plan.shared(begin(a).factors), "float32")
        assert all(t.isfinite().all() for t in shared.values())


class Exploding:
    """Texts of one token have a gradient without bounds."""

    metric = "accuracy"

    def losses(self, model, batch):
        wild = batch["attention_mask"].sum(dim=1) == 1
        return CLASSIFY.losses(model, batch) * torch.where(wild, torch.inf, 1.0)

    def measure(self, model, batch):
        return CLASSIFY.measure(model, batch)


def test_clients_of_unequal_ranks_and_steps_do_not_go_together_and_end_alike(tmp_path):
    a = axes("hetlora", SGD(lr=0.3), adapter(rank=3))
    ranks = {ClientId(f"silo-{i}"): 1 + i % 3 for i in range(CLIENTS)}
    alone = end(a, InProcess(trainer(a), members(tmp_path, name="alone")), ranks=ranks)
    crowd = end(a, Crowds(trainer(a), members(tmp_path, name="crowd"), 5), ranks=ranks)
    assert gap(crowd, alone) < 1e-9


def test_what_optimisers_remember_is_every_clients_own(tmp_path):
    a, ends = axes("fedit", AdamW(lr=0.02)), []
    for name, at_once in (("alone", 1), ("crowd", CLIENTS)):
        own = members(tmp_path, name=name)
        runtime = InProcess(trainer(a), own) if at_once == 1 else Crowds(trainer(a), own, at_once)
        ends.append(end(a, runtime, carried=True))
    assert gap(*ends) < 1e-9


def test_in_float32_a_crowd_is_one_by_one_to_rounding(tmp_path):
    torch.set_default_dtype(torch.float32)
    a = axes("fedit", SGD(lr=0.3))
    alone = end(a, InProcess(trainer(a), members(tmp_path, name="alone")))
    crowd = end(a, Crowds(trainer(a), members(tmp_path, name="crowd"), CLIENTS))
    assert gap(crowd, alone) < 1e-5
