"""What a whole round must obey when the server hides its clients, for every method."""

import math
from dataclasses import dataclass, replace

import pytest
import torch

from covering import every_method, plain
from silotune.aggregation import Aggregator, Combined
from silotune.core import ClientId, Factors, Phase, Role, RoundPlan, Statistics, pack, unpack
from silotune.core.files import read_lines
from silotune.engine import QuorumError, Server, federate
from silotune.engine.checkpoint import decode, encode, everything
from silotune.linalg import LowRank, dense
from silotune.methods import IncompatibleMethodError
from silotune.optim import SGD
from silotune.privacy import (
    Charge,
    ClientLevel,
    Correlated,
    FullParticipation,
    Gaussian,
    Poisson,
    PrivacyBudget,
    Rotation,
    SiloStore,
    SiloStoreError,
)
from silotune.privacy.accounting.accountant import epsilon
from silotune.privacy.ledger.chain import read_ledger
from silotune.privacy.mechanisms.dp_fedavg import CLIPPING_NORM
from silotune.privacy.mechanisms.matrix_factorization import CorrelatedStream, sensitivity
from silotune.privacy.mechanisms.secure_rng import Randomness
from silotune.runtimes import InProcess
from silotune.schedules import Schedule
from toys import agreed, axes, begin, experiment, silos, trainer

pytestmark = pytest.mark.usefixtures("same_secrets")

STEP = SGD(lr=0.3)


def sends_all(method: str) -> bool:
    """Not so where clients keep tensors at home, or weigh by norms: refused under this unit."""
    axes, plan = plain(method), plain(method).schedule.plan(0)
    alike = not axes.aggregator.rule.weighs_by_norm
    return alike and (plan.trained() <= plan.share or method == "rolora")


methods = every_method(sends_all)


def whole(state) -> dict:
    """The function of a state: what is added at each site (out, in), and the heads."""
    added = {s: dense(m) for s, m in state.folded.items()}
    for site in state.factors.pair_sites():
        added[site] = added.get(site, 0.0) + state.factors.pair(site).dense()
    return {**added, **state.factors.only({Role.HEAD, Role.D, Role.GATE})}


def same(one, two, rtol=1e-9, atol=1e-11) -> None:
    """Products are summed in another form under this unit, so last bits differ."""
    expected, found = whole(one), whole(two)
    assert expected.keys() == found.keys()
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=rtol, atol=atol)


def central(**changes) -> ClientLevel:
    choices = {
        "clients": 3,
        "sampling": Poisson(1.0),
        "noise": Gaussian(0.0),
        "max_update_norm": 1e30,  # a ledger holds no infinity
    }
    return ClientLevel(**(choices | changes))


def noised(**changes) -> ClientLevel:
    return central(**({"noise": Gaussian(1.0), "max_update_norm": 0.1} | changes))


def turning(z: float = 1.0, turns: int = 1, **changes) -> ClientLevel:
    kinds = {"sampling": Rotation(turns), "noise": Correlated(z, 2)}
    return (noised if z else central)(**(kinds | changes))


def hidden(method_axes, mechanism, **changes):
    clients = [ClientId(f"silo-{i}") for i in range(3)]
    uniform = dict.fromkeys(clients, 1.0)
    choices = {"weights": uniform, "private": True, "central": mechanism, "quorum": 3}
    return experiment(method_axes, clients, **(choices | changes))


def run(method_axes, mechanism, home, runtime=None, state=None, **changes):
    exp = hidden(method_axes, mechanism, **changes)
    runtime = runtime or InProcess(trainer(method_axes), silos())
    return list(federate(exp, runtime, state or begin(method_axes), Server(home=home)))


class Altered:
    """A runtime whose results are changed, or not asked for at all."""

    def __init__(self, inner, change) -> None:
        self.inner, self.change, self.asked = inner, change, []

    def clients(self):
        return self.inner.clients()

    def train(self, tasks):
        self.asked.append([task.client for task in tasks])
        yield from self.change(list(self.inner.train(tasks)))


@every_method(sends_all, (0, 3))
def test_without_noise_and_bound_it_is_the_plain_mean(method, tmp_path):
    """Nearly: x + mean(x_k - x) is rounded once more than mean(x_k)."""
    a = plain(method)
    everyone = run(a, FullParticipation(), tmp_path, private=False)[-1].state
    same(everyone, run(a, central(), tmp_path)[-1].state)


@pytest.mark.parametrize("method", ["ffa-lora", "fedit", "head-only", "rolora", "la-lora"])
def test_in_single_precision_the_two_are_bit_for_bit_the_same(method, tmp_path):
    torch.set_default_dtype(torch.float32)  # laws run in float64; the fixture puts it back
    a = axes(method, STEP)
    everyone = run(a, FullParticipation(), tmp_path, private=False)[-1].state.factors
    assert run(a, central(), tmp_path)[-1].state.factors.digest() == everyone.digest()


@every_method(sends_all, (1, 3))
def test_order_and_repetition_of_results_are_irrelevant(method, tmp_path):
    a = plain(method)
    mechanism = central(max_update_norm=0.05, target_quantile=0.5)
    runtime = Altered(InProcess(trainer(a), silos()), lambda results: [*results[::-1], *results])
    one = run(a, mechanism, tmp_path / "one")[-1].state
    two = run(a, mechanism, tmp_path / "two", runtime)[-1].state
    assert everything(one).digest() == everything(two).digest()


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_two_halves_make_a_whole(noise, tmp_path):
    """Through a checkpoint; the adapted clipping norm is part of it."""
    a = axes("fedit", STEP)
    mechanism = noised(noise=Gaussian(noise), clients=40, target_quantile=0.7, insecure_seed=5)
    whole = run(a, mechanism, tmp_path / "whole")
    state, *_ = decode(encode(whole[0].state, "law", ""))
    assert state.memory[CLIPPING_NORM] != 0.1
    resumed = run(a, mechanism, tmp_path / "half", state=state)
    assert everything(resumed[-1].state).digest() == everything(whole[-1].state).digest()


@methods
def test_no_client_moves_the_released_mean_by_more_than_its_share(method, tmp_path):
    """S / N, with one client and without, whatever it sends; x_t itself is not clipped.

    All that a rule, and so the next state, is made of is that mean.
    """
    shown = Shown(plain(method).aggregator, [])
    a = replace(plain(method), aggregator=shown)

    def huge(results):
        shared, header = unpack(results[0].sealed)
        return [replace(results[0], sealed=pack(shared.map(lambda t: t * 1e6), header))]

    runtime = Altered(InProcess(trainer(a), silos()), huge)
    mechanism = central(max_update_norm=0.3)
    run(a, mechanism, tmp_path / "a", runtime, rounds=1)
    without = Altered(InProcess(trainer(a), silos()), lambda results: [])
    alone = run(a, mechanism, tmp_path / "b", without, rounds=1)[0].state
    one, none = shown.seen
    gaps = [one.first[k] - none.first[k] for k in one.first]
    gaps += [dense(one.product[k]) - dense(none.product[k]) for k in one.product]
    assert sum(float(gap.square().sum()) for gap in gaps) ** 0.5 == pytest.approx(0.1)
    same(begin(a), alone)


@dataclass(frozen=True)
class Shown(Aggregator):
    """A rule, and what it is shown."""

    inner: object
    seen: list

    @property
    def needs_product(self) -> bool:
        return self.inner.needs_product

    @property
    def mixes_ranks(self) -> bool:
        return self.inner.mixes_ranks

    @property
    def keeps_basis(self) -> bool:
        return self.inner.keeps_basis

    def combine(self, previous, mean):
        self.seen.append(mean)
        return self.inner.combine(previous, mean)


def nan(results):
    shared, header = unpack(results[0].sealed)
    return [replace(results[0], sealed=pack(shared.map(lambda t: t * math.nan), header))]


LOSSES = {
    "late": lambda results: results[1:],
    "torn": lambda results: [replace(results[0], sealed=b"?"), *results[1:]],
    "refused": lambda results: [replace(results[0], sealed=b"", refusal="no"), *results[1:]],
    "not a number": lambda results: [*nan(results), *results[1:]],
}


@pytest.mark.parametrize("loss", LOSSES)
def test_the_denominator_does_not_tell_who_is_missing_and_no_quorum_does(loss, tmp_path):
    a = axes("ffa-lora", STEP)
    runtime = Altered(InProcess(trainer(a), silos()), LOSSES[loss])
    done = run(a, central(), tmp_path / "lost", runtime, rounds=1)[0].state.factors
    start = begin(a).factors
    others = [
        run(
            a,
            central(),
            tmp_path / str(i),
            Altered(InProcess(trainer(a), silos()), lambda results, i=i: results[i : i + 1]),
            rounds=1,
        )[0].state.factors
        for i in (1, 2)
    ]
    for key in start:
        expected = start[key] + sum(other[key] - start[key] for other in others)
        torch.testing.assert_close(done[key], expected)


def test_an_empty_cohort_takes_a_noised_step_and_asks_nobody(tmp_path):
    a = axes("ffa-lora", STEP)
    runtime = Altered(InProcess(trainer(a), silos()), lambda results: results)
    mechanism = noised(sampling=Poisson(1e-9), max_update_norm=1e-9)
    rounds = run(a, mechanism, tmp_path, runtime)
    assert runtime.asked == []
    start, end = begin(a).factors, rounds[-1].state.factors
    shared = a.schedule.plan(0).share
    for key in start:
        assert torch.equal(start[key], end[key]) != (key.role in shared)
    moved = torch.cat([(end[k] - start[k]).flatten() for k in start.only(shared)])
    assert moved.std().item() == pytest.approx(math.sqrt(3) / 3, rel=0.5)  # three rounds of S/qN


def test_only_the_cohort_is_asked(tmp_path):
    a = axes("ffa-lora", STEP)
    mechanism = noised(sampling=Poisson(0.5), insecure_seed=2)
    runtime = Altered(InProcess(trainer(a), silos()), lambda results: results)
    run(a, mechanism, tmp_path, runtime, rounds=8)
    clients = runtime.clients()
    expected = [list(mechanism.cohort(clients, mechanism.draws(i, None))) for i in range(8)]
    assert runtime.asked == [cohort for cohort in expected if cohort]
    assert {len(cohort) for cohort in expected} >= {1, 2}


def test_a_round_tells_nothing_of_its_cohort(tmp_path):
    """Two runs that differ in who was asked and who answered differ in the state alone."""
    a = axes("fedit", STEP)
    full = run(a, noised(sampling=Poisson(0.5)), tmp_path / "a", rounds=1)[0]
    empty = run(
        a,
        noised(sampling=Poisson(0.5)),
        tmp_path / "b",
        Altered(InProcess(trainer(a), silos()), lambda results: []),
        rounds=1,
    )[0]
    assert full.pooled == empty.pooled
    assert full.state.latest.holders == empty.state.latest.holders == frozenset()
    assert full.bytes_down == empty.bytes_down > 1000
    assert full.pooled.bytes_up > 500
    assert full.pooled.statistics is None
    assert (full.pooled.clients, full.pooled.missing, full.pooled.resent) == ((), {}, ())
    assert math.isnan(full.aggregation_error)


def test_expected_bytes_are_those_of_all_clients_at_rate_one(tmp_path):
    a = axes("fedit", STEP)
    everyone = run(a, FullParticipation(), tmp_path, private=False, rounds=1)[0]
    ours = run(a, noised(), tmp_path, rounds=1)[0]
    assert (ours.pooled.bytes_up, ours.bytes_down) == (
        everyone.pooled.bytes_up,
        everyone.bytes_down,
    )
    half = run(a, noised(sampling=Poisson(0.5)), tmp_path / "half", rounds=1)[0]
    assert half.bytes_down == pytest.approx(everyone.bytes_down / 2, abs=1)


# ---- products


@dataclass(frozen=True)
class Nosy(Aggregator):
    """An aggregator that asks for E[BA], and keeps what it is shown."""

    seen: list
    asks: bool = True

    mixes_ranks = False
    keeps_basis = True

    @property
    def needs_product(self) -> bool:
        return self.asks

    def combine(self, previous, mean):
        self.seen.append(mean)
        means = {k: t.to(previous.factors[k].dtype) for k, t in mean.first.items()}
        return Combined(factors=Factors(means))


def test_products_are_pooled_with_noise_only_if_they_are_asked_for(tmp_path):
    nosy = Nosy([])
    a = replace(axes("fedit", STEP), aggregator=nosy)
    run(a, central(), tmp_path / "quiet", rounds=1)
    run(a, noised(noise=Gaussian(2.0)), tmp_path / "loud", rounds=1)
    quiet, loud = nosy.seen
    assert set(quiet.product) == {"up", "down"}
    for site, matrix in loud.product.items():
        assert not isinstance(matrix, LowRank)
        assert (matrix - quiet.product[site]).std().item() == pytest.approx(0.2 / 3, rel=0.5)
    spared = Nosy([], asks=False)
    run(replace(a, aggregator=spared), noised(), tmp_path / "spared", rounds=1)
    assert spared.seen[0].product == {}


def test_products_without_noise_and_bound_are_those_of_everyone(tmp_path):
    nosy = Nosy([])
    a = replace(axes("fedit", STEP), aggregator=nosy)
    run(a, FullParticipation(), tmp_path, private=False, rounds=2)
    run(a, central(), tmp_path, rounds=2)
    for everyone, ours in zip(nosy.seen[:2], nosy.seen[2:], strict=True):
        for site, matrix in everyone.product.items():
            torch.testing.assert_close(ours.product[site], dense(matrix), rtol=1e-9, atol=1e-12)


# ---- accounts


def charges(home):
    return [(c.round, c.attempt, c.silo) for c in read_ledger(home / "ledger.jsonl")]


def test_every_round_is_charged_before_its_state_is_told(tmp_path):
    a = axes("ffa-lora", STEP)
    exp = hidden(a, noised(sampling=Poisson(0.5), noise=Gaussian(1.5)))
    rounds = federate(exp, InProcess(trainer(a), silos()), begin(a), Server(home=tmp_path))
    for i, _ in enumerate(rounds):
        assert charges(tmp_path) == [(r, 0, "every client") for r in range(i + 1)]
    assert read_ledger(tmp_path / "ledger.jsonl")[0].charge == Charge(0.5, 1.5, 1)


def test_a_state_that_was_released_is_taken_again_and_not_charged_again(tmp_path):
    """As if the process had died between the charge and the checkpoint."""
    a = axes("ffa-lora", STEP)
    mechanism = noised()
    first = run(a, mechanism, tmp_path, rounds=1)[0].state
    runtime = Altered(InProcess(trainer(a), silos()), lambda results: results)
    again = run(a, mechanism, tmp_path, runtime, rounds=1)[0].state
    assert everything(again).digest() == everything(first).digest()
    assert runtime.asked == []
    assert charges(tmp_path) == [(0, 0, "every client")]


def test_a_round_whose_state_was_lost_is_charged_again(tmp_path):
    a = axes("ffa-lora", STEP)
    first = run(a, noised(), tmp_path, rounds=1)[0].state
    next((tmp_path / "sent").glob("round-*")).write_bytes(b"torn")
    again = run(a, noised(), tmp_path, rounds=1)[0].state
    assert everything(again).digest() != everything(first).digest()
    assert charges(tmp_path) == [(0, 0, "every client"), (0, 1, "every client")]


def test_a_round_that_breaks_off_costs_nothing(tmp_path):
    a = axes("ffa-lora", STEP)

    def broken(results):
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        run(a, noised(), tmp_path, Altered(InProcess(trainer(a), silos()), broken))
    assert charges(tmp_path) == []


def test_the_run_stops_before_the_budget_is_passed(tmp_path):
    a = axes("ffa-lora", STEP)
    mechanism = noised(noise=Gaussian(2.0))
    limit = epsilon([replace(mechanism.charge(), steps=2)], 1e-2) * 1.001
    server = Server(home=tmp_path, budget=PrivacyBudget(epsilon=limit, delta=1e-2))
    rounds = federate(hidden(a, mechanism), InProcess(trainer(a), silos()), begin(a), server)
    assert [next(rounds).state.round, next(rounds).state.round] == [1, 2]
    with pytest.raises(QuorumError, match=r"round 2 is not trained: the budget .* every client"):
        next(rounds)
    assert len(charges(tmp_path)) == 2


def test_it_does_not_run_without_a_ledger():
    a = axes("ffa-lora", STEP)
    rounds = federate(hidden(a, noised()), InProcess(trainer(a), silos()), begin(a))
    with pytest.raises(ValueError, match="needs a folder"):
        next(rounds)


def test_weights_must_be_equal():
    a = axes("ffa-lora", STEP)
    weights = {"silo-0": 1.0, "silo-1": 2.0, "silo-2": 1.0}
    for wrong in (weights, dict.fromkeys(weights, None)):
        with pytest.raises(IncompatibleMethodError, match=r"weighting: uniform"):
            hidden(a, noised(), weights=wrong)


# ---- noise that is correlated over rounds


def key(home):
    with SiloStore(home) as store:
        return store.past("law").key


@every_method(lambda m: sends_all(m) and m != "rolora", (2, 3))
def test_with_turns_and_without_noise_and_bound_it_is_the_plain_mean(method, tmp_path):
    a = plain(method)
    everyone = run(a, FullParticipation(), tmp_path, private=False)[-1].state
    same(everyone, run(a, turning(0.0), tmp_path)[-1].state)


@pytest.mark.parametrize("products", [False, True])
def test_successive_rounds_are_rows_of_one_stream_also_after_a_resume(products, tmp_path):
    """Bit for bit, in all that an aggregator is shown; no client answers."""
    nosy = Nosy([], asks=products)
    a = replace(axes("fedit", STEP), aggregator=nosy)
    silent = Altered(InProcess(trainer(a), silos()), lambda results: [])
    states = [begin(a)]
    for upto in (2, 5):
        found, *_ = decode(encode(states[-1], "law", ""))  # as another process would find it
        rounds = run(a, turning(2.0), tmp_path, silent, found, rounds=upto)
        states += [done.state for done in rounds]
    stream = CorrelatedStream(Randomness(key(tmp_path)).fork("noise"), 2, 2.0, 0)
    for state, mean in zip(states, nosy.seen, strict=False):
        held = Statistics.of(state.factors.only(a.schedule.plan(0).share), 1.0)
        parts = [*held.first.values(), *(dense(m) for m in held.product.values() if products)]
        sizes = [part.numel() for part in parts]
        row = torch.split(stream.draw(0.1, sum(sizes)), sizes)
        due = [part + z.view(part.shape) / 3.0 for part, z in zip(parts, row, strict=True)]
        shown = [*mean.first.values(), *mean.product.values()]
        assert all(torch.equal(x, y) for x, y in zip(shown, due, strict=True))
    assert len(nosy.seen) == 5


def test_each_client_is_asked_every_so_many_rounds(tmp_path):
    a = axes("ffa-lora", STEP)
    runtime = Altered(InProcess(trainer(a), silos()), lambda results: results)
    mechanism = turning(turns=2)
    state = begin(a)
    asked = []
    for upto in (3, 8):  # resumed in the middle
        runtime.asked.clear()
        for done in run(a, mechanism, tmp_path, runtime, state, rounds=upto):
            state = done.state
        asked += runtime.asked
    assert sorted(client for cohort in asked for client in cohort) == sorted(runtime.clients() * 4)
    for cohort in asked:
        assert asked.count(cohort) == 4


def test_a_stream_costs_one_gaussian(tmp_path):
    a = axes("ffa-lora", STEP)
    run(a, turning(4.0, turns=2), tmp_path, rounds=5)
    spent = [entry.charge for entry in read_ledger(tmp_path / "ledger.jsonl")]
    one = Charge(1.0, 4.0 / sensitivity(2, 2, 5), 1)
    assert epsilon(spent, 1e-4) == pytest.approx(epsilon([one], 1e-4), rel=1e-9)


def test_a_crash_after_the_charge_takes_the_same_state_again(tmp_path):
    a = axes("ffa-lora", STEP)
    rounds = run(a, turning(), tmp_path, rounds=3)
    runtime = Altered(InProcess(trainer(a), silos()), lambda results: results)
    again = run(a, turning(), tmp_path, runtime, rounds[1].state, rounds=3)[0].state
    assert everything(again).digest() == everything(rounds[2].state).digest()
    assert runtime.asked == []
    assert charges(tmp_path) == [(i, 0, "every client") for i in range(3)]


def test_a_crash_before_the_charge_draws_the_same_row_for_what_nobody_saw(tmp_path):
    a = axes("ffa-lora", STEP)

    def broken(results):
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        run(a, turning(), tmp_path, Altered(InProcess(trainer(a), silos()), broken))
    before = key(tmp_path)
    run(a, turning(), tmp_path)
    assert key(tmp_path) == before
    assert charges(tmp_path) == [(i, 0, "every client") for i in range(3)]


@pytest.mark.parametrize("damage", ["torn", "gone", "an older checkpoint"])
def test_a_state_that_was_charged_and_lost_is_refused(damage, tmp_path):
    a = axes("ffa-lora", STEP)
    rounds = run(a, turning(), tmp_path, rounds=3)
    [parcel] = (tmp_path / "sent").glob("round-*")
    if damage == "torn":
        parcel.write_bytes(b"torn")
    if damage == "gone":
        parcel.unlink()
    state = begin(a) if damage == "an older checkpoint" else rounds[1].state
    runtime = Altered(InProcess(trainer(a), silos()), lambda results: results)
    with pytest.raises(SiloStoreError, match=r"is lost, and correlated noise .* a new run"):
        run(a, turning(), tmp_path, runtime, state, rounds=3)
    assert runtime.asked == []
    assert len(charges(tmp_path)) == 3


def test_a_server_that_forgot_its_stream_is_refused(tmp_path):
    a = axes("ffa-lora", STEP)
    state = run(a, turning(), tmp_path / "one", rounds=2)[-1].state
    with pytest.raises(ValueError, match=r"0 rounds have drawn .* would be round 3: .* a new run"):
        run(a, turning(), tmp_path / "another", state=state)
    assert charges(tmp_path / "another") == []


def test_a_lost_key_is_refused(tmp_path):
    a = axes("ffa-lora", STEP)
    state = run(a, turning(), tmp_path, rounds=1)[0].state
    next((tmp_path / "keys").glob("*.key")).unlink()
    with pytest.raises(SiloStoreError, match="key of this run is lost"):
        run(a, turning(), tmp_path, state=state)


def test_other_clients_in_the_middle_of_a_run_are_refused(tmp_path):
    """They would shift the turns of those who stay."""
    a = axes("ffa-lora", STEP)
    state = run(a, turning(), tmp_path, rounds=1)[0].state
    others = dict.fromkeys([ClientId("silo-0"), ClientId("silo-2")], 1.0)
    with pytest.raises(SiloStoreError, match=r"partition: the clients are not those"):
        run(a, turning(), tmp_path, state=state, weights=others)
    backwards = dict.fromkeys([ClientId(f"silo-{i}") for i in (2, 1, 0)], 1.0)
    run(a, turning(), tmp_path, state=state, weights=backwards)
    fresh = run(a, noised(), tmp_path / "fresh", rounds=1)[0].state
    run(a, noised(), tmp_path / "fresh", state=fresh, weights=others)


@dataclass(frozen=True)
class EveryOther(Schedule):
    """A schedule that shares other tensors in every second round."""

    inner: object

    def plan(self, round, sites=()):
        plan = self.inner.plan(round)
        roles = plan.share - {Role.HEAD}
        return RoundPlan(phases=(Phase(roles=roles),), share=roles) if round % 2 else plan

    def plans(self):
        return self.plan(0), self.plan(1)


def test_a_stream_needs_the_same_tensors_in_every_round():
    a = axes("ffa-lora", STEP)
    a = replace(a, schedule=EveryOther(a.schedule))
    hidden(a, noised())
    with pytest.raises(IncompatibleMethodError, match=r"noise: correlated"):
        hidden(a, turning())


# ---- clients


class Bad:
    """Losses of an objective, of which one in a batch is not a number, or all are."""

    def __init__(self, inner, which) -> None:
        self.inner, self.which = inner, which

    def losses(self, model, batch):
        losses = self.inner.losses(model, batch)
        broken = torch.ones_like(losses)
        broken[self.which] = math.nan
        return losses * broken


@pytest.mark.parametrize("which", [slice(0, 1), slice(None)], ids=["one", "all"])
def test_a_broken_record_is_no_error_that_would_tell_of_it(which, tmp_path):
    a = axes("ffa-lora", STEP)
    broken = replace(trainer(a), objective=Bad(trainer(a).objective, which))
    with pytest.raises(ValueError, match="not finite"):
        run(a, noised(), tmp_path / "plain", InProcess(broken, silos()))
    quiet = {c: replace(s, discreet=True, home=tmp_path / c) for c, s in silos().items()}
    for silo in quiet.values():
        silo.home.mkdir()
    quiet = agreed(hidden(a, noised()), quiet)
    rounds = run(a, noised(), tmp_path / "quiet", InProcess(broken, quiet))
    assert [done.pooled.missing for done in rounds] == [{}] * 3
    assert len(read_lines(tmp_path / "silo-0" / "errors.jsonl")) == 3
