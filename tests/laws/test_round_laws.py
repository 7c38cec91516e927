"""What a whole round must obey, for every method of the catalogue."""

from dataclasses import replace
from itertools import count, islice

import pytest
import torch

from covering import OPTIMIZERS, every_method, every_point, fitting, plain
from silotune.aggregation import Refactor, Sketch
from silotune.core import (
    ClientId,
    Factors,
    GlobalState,
    Key,
    Role,
    Statistics,
    decode_result,
    decode_task,
    encode_result,
    encode_task,
    tensors_of,
)
from silotune.engine import QuorumError, federate
from silotune.engine.loop import make_tasks
from silotune.engine.personalization import personal
from silotune.engine.server import contribution, pool
from silotune.linalg import dense
from silotune.optim import SGD
from silotune.privacy import NoPrivacy
from silotune.runtimes import InProcess
from toys import axes, begin, experiment, loss, notes, silos, trainer

by_sgd = every_method(lambda m: OPTIMIZERS[0] in fitting(m) and m != "alt-lora")


def whole(state, own=None) -> dict:
    """The function that a state computes: what is added at each site (out, in), and the heads."""
    factors = state.factors.updated(own or {})
    added = {s: dense(m) for s, m in state.folded.items()}
    for site in factors.pair_sites():
        added[site] = added.get(site, 0.0) + factors.pair(site).dense()
    return {**added, **factors.only({Role.HEAD, Role.D, Role.GATE})}


@pytest.fixture
def clients(tmp_path):
    """Silos that own a folder, for what they keep to themselves."""
    number = count()
    return lambda n=3, **changes: silos(n, home=tmp_path / str(next(number)), **changes)


def last(method_axes, runtime, state=None, **changes):
    exp = experiment(method_axes, runtime.clients(), **changes)
    return list(federate(exp, runtime, state or begin(method_axes)))[-1].state


class Shuffled:
    """A runtime that delivers in another order, twice, and through bytes."""

    def __init__(self, inner: InProcess) -> None:
        self.inner = inner

    def clients(self):
        return self.inner.clients()

    def train(self, tasks):
        through = [decode_task(encode_task(t)) for t in tasks]
        results = list(self.inner.train(through[::-1]))
        stale = [replace(r, round=r.round - 1) for r in results]
        for r in [*stale, *results, *results]:
            yield decode_result(encode_result(r))

    def evaluate(self, tasks):
        raise AssertionError


@every_point((0, 3))
def test_order_and_repetition_of_results_are_irrelevant(method, optimizer, clients):
    a = axes(method, optimizer)
    in_order = last(a, InProcess(trainer(a), clients()))
    shuffled = last(a, Shuffled(InProcess(trainer(a), clients())))
    assert in_order.factors.digest() == shuffled.factors.digest()


@every_point((1, 3))
def test_two_halves_make_a_whole(method, optimizer, clients):
    a, same = axes(method, optimizer), clients()
    whole = last(a, InProcess(trainer(a), clients()))
    first = next(
        federate(
            experiment(a, ["silo-0", "silo-1", "silo-2"]), InProcess(trainer(a), same), begin(a)
        )
    )
    resumed = last(a, InProcess(trainer(a), same), first.state)
    assert whole.round == resumed.round == 3
    assert whole.factors.digest() == resumed.factors.digest()


@by_sgd
def test_one_client_one_step_is_centralised_training(method, clients):
    """Against ordinary autograd and a hand-written SGD step in float64, as functions."""
    options = {"la-lora": {"low_pass": False}, "flora": {"initial_a": "shared"}}.get(method, {})
    a = axes(method, SGD(lr=0.3), **options)
    silo = clients(1)[ClientId("silo-0")]
    everything = replace(silo, privacy=NoPrivacy(batch_size=10**6))
    runtime = InProcess(trainer(a), {silo.client: everything})
    after = last(a, runtime, rounds=1, local_steps=1)
    plan = experiment(a, runtime.clients()).plan(0)
    reference = trainer(a)
    model = reference.adapted
    model.load(begin(a).factors)
    trained = model.train_only(plan.phases[0].roles, plan.fixed)
    batch = everything.train.batch(range(len(everything.train.lengths)))
    loss = model.losses(reference.objective.losses, batch).mean()
    grads = dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))
    moved = {k: t - 0.3 * grads[k] if k in grads else t for k, t in begin(a).factors.items()}
    expected = whole(GlobalState(round=1, factors=Factors(moved)))
    found = whole(after, personal(silo.home, "law", before=1))
    assert expected.keys() == found.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-6, atol=1e-9)


@every_point((2, 3))
def test_every_method_learns(method, optimizer, clients):
    a = axes(method, optimizer)
    b, own_records = trainer(a), clients(records=40)
    state = last(a, InProcess(b, own_records), rounds=12, local_steps=4)
    held_out = notes(60, "held out")
    own = [personal(silo.home, "law", before=12) for silo in own_records.values()]
    before, after = loss(b, begin(a), held_out), [loss(b, state, held_out, o) for o in own]
    assert max(after) < before - 0.05


@every_method(part=(0, 3))
def test_only_what_is_trained_moves(method, clients):
    a = plain(method)
    exp = experiment(a, list(clients()))
    before, after = begin(a).factors, last(a, InProcess(trainer(a), clients())).factors
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    fresh = a.schedule.plan(2).fold  # pairs that begin again: A is another, and B is 0 as it was
    if not fresh and not isinstance(a.aggregator, Refactor | Sketch):
        shared = set().union(*(exp.plan(r).shared(before) for r in range(3)))
        assert moved == shared
    assert {k for k in moved if k.role is Role.HEAD} <= exp.plan(0).shared(before).keys()


@every_method(part=(1, 3))
def test_only_what_is_shared_travels_up(method, clients):
    a = plain(method)
    runtime = InProcess(trainer(a), clients())
    exp = experiment(a, runtime.clients())
    only = next(federate(exp, runtime, begin(a)))
    numbers = exp.plan(0).shared(begin(a).factors).num_elements()
    sent = numbers * 8 * 3  # float64 here
    assert sent < only.pooled.bytes_up < sent + 3 * 1500


@every_method(part=(2, 3))
def test_at_first_seeds_travel_down_and_later_only_what_is_new(method, clients):
    a = plain(method)
    runtime = InProcess(trainer(a), clients())
    exp = experiment(a, runtime.clients())
    first, second = islice(federate(exp, runtime, begin(a)), 2)
    assert first.bytes_down < 3 * 4500, "no number has changed yet"
    new = first.state.latest
    numbers = sum(first.state.factors[k].numel() for k in new.keys - first.state.drawn.keys())
    numbers += tensors_of(new.folded).num_elements()
    sent = numbers * 8 * 3
    assert sent < second.bytes_down < sent + 3 * 4500


def test_ffa_lora_is_exact_and_fedit_is_not():
    error = {}
    for method in ("ffa-lora", "fedit"):
        a = axes(method, SGD(lr=0.3))
        runtime = InProcess(trainer(a), silos())
        rounds = list(federate(experiment(a, runtime.clients()), runtime, begin(a)))
        error[method] = rounds[-1].aggregation_error
    assert error["ffa-lora"] == 0.0
    assert error["fedit"] > 1e-4


def test_weights_count():
    a = axes("ffa-lora", SGD(lr=0.3))
    runtime = InProcess(trainer(a), silos())
    exp = experiment(a, runtime.clients(), weights={"silo-0": 1.0, "silo-1": 0.0, "silo-2": 0.0})
    tasks = make_tasks(exp, runtime.clients(), begin(a))
    begun = begin(a)

    def opened(task, result):
        return contribution(exp, begun, task, result)

    mean = pool(tasks, runtime.train(tasks), opened).statistics.mean()
    alone = InProcess(trainer(a), silos(1))
    one = pool(tasks[:1], alone.train(tasks[:1]), opened).statistics.mean()
    for key, tensor in one.first.items():
        torch.testing.assert_close(mean.first[key], tensor)


def test_alpha_and_the_learning_rate_are_one_knob():
    """FFA-LoRA: (alpha, eta) moves the model as (c alpha, eta / c^2) does (arXiv 2403.12313)."""
    from toys import adapter

    one = axes("ffa-lora", SGD(lr=0.3), adapter(alpha=2.0))
    two = axes("ffa-lora", SGD(lr=0.3 / 9), adapter(alpha=6.0))
    keep = {Role.A, Role.B}

    def run(a):
        a = replace(a, schedule=type(a.schedule)(_only_b()))
        return last(a, InProcess(trainer(a), silos())).factors.only(keep)

    first, second = run(one), run(two)
    for site in first.pair_sites():
        scaled = second.pair(site).dense() * 3.0
        torch.testing.assert_close(first.pair(site).dense(), scaled, rtol=1e-6, atol=1e-9)


def _only_b():
    from silotune.core import Phase, RoundPlan

    return RoundPlan(phases=(Phase(roles=frozenset({Role.B})),), share=frozenset({Role.B}))


def test_a_wrong_frozen_factor_is_noticed():
    a = axes("ffa-lora", SGD(lr=0.3))
    other = replace(trainer(a), draw=lambda seed: begin(a).factors.map(lambda t: t + 1e-9))
    runtime = InProcess(other, silos())
    with pytest.raises(ValueError, match="SHA-256"):
        next(federate(experiment(a, runtime.clients()), runtime, begin(a)))


class Spoiled(Shuffled):
    """The first client's contribution arrives changed."""

    def __init__(self, inner, change) -> None:
        super().__init__(inner)
        self.change = change

    def train(self, tasks):
        for i, r in enumerate(self.inner.train(tasks)):
            yield self.change(r) if i == 0 else r


def _flip(r):
    return replace(r, sealed=r.sealed[:-1] + bytes([r.sealed[-1] ^ 1]))


def _nan(r):
    from silotune.core import pack, unpack

    shared, header = unpack(r.sealed)
    return replace(r, sealed=pack(shared.map(lambda t: t * float("nan")), header))


def _smaller(r):
    from silotune.core import pack, unpack

    shared, header = unpack(r.sealed)
    return replace(r, sealed=pack(shared.map(lambda t: t[:1]), header))


@pytest.mark.parametrize("change", [_flip, _nan, _smaller], ids=["torn", "nan", "shape"])
def test_a_bad_update_is_refused_by_name_and_the_rest_goes_on(change):
    a = axes("ffa-lora", SGD(lr=0.3))
    runtime = Spoiled(InProcess(trainer(a), silos()), change)
    done = next(federate(experiment(a, runtime.clients(), quorum=2), runtime, begin(a)))
    assert done.pooled.clients == ("silo-1", "silo-2")
    assert "refused" in done.pooled.missing["silo-0"]
    honest = next(
        federate(
            experiment(a, ["silo-1", "silo-2"], weights={"silo-1": 2.0, "silo-2": 3.0}),
            InProcess(trainer(a), {c: s for c, s in silos().items() if c != "silo-0"}),
            begin(a),
        )
    )
    assert done.state.factors.digest() == honest.state.factors.digest()


def test_too_few_clients_stop_the_run_and_are_named():
    a = axes("ffa-lora", SGD(lr=0.3))
    runtime = Spoiled(InProcess(trainer(a), silos()), _flip)
    with pytest.raises(QuorumError, match=r"needs 3 clients.*silo-0"):
        next(federate(experiment(a, runtime.clients()), runtime, begin(a)))


class Forgetful(SGD):
    """Leaves the head out, as an optimiser built before the head was replaced would."""

    def build(self, tensors, lr):
        kept = {k: p for k, p in tensors.items() if k.role is not Role.HEAD}
        return super().build(kept, lr)


def test_a_tensor_that_does_not_move_is_an_error_that_names_it():
    torch.set_default_dtype(torch.float32)  # as in a real run: the mean of equal tensors is exact
    a = axes("ffa-lora", Forgetful(lr=0.3))
    runtime = InProcess(trainer(a), silos())
    with pytest.raises(ValueError, match=r"classifier.*exactly as it was"):
        next(federate(experiment(a, runtime.clients()), runtime, begin(a)))


def test_statistics_of_equal_tensors_average_to_the_same_bits():
    tensors = begin(axes("ffa-lora", SGD(lr=1.0))).factors.map(lambda t: t.float())
    total = Statistics.of(tensors, 0.1) + Statistics.of(tensors, 0.7) + Statistics.of(tensors, 3.3)
    mean = total.mean().first
    assert all(torch.equal(mean[k].float(), t) for k, t in tensors.items())
    assert Key("up", Role.B) in mean
