"""What survives a round, for every method: resumed, sent in parts, missed, joined late, refused."""

import math
from dataclasses import replace
from itertools import count, islice, pairwise

import pytest
import torch

from covering import every_method, plain, some
from silotune.core import (
    ClientId,
    Factors,
    GlobalState,
    Key,
    Role,
    decode_task,
    encode_task,
    pack,
    state_digest,
    tensors_of,
    unpack,
)
from silotune.engine import federate
from silotune.engine.checkpoint import decode, encode, everything
from silotune.engine.loop import bytes_to, bytes_to_all, make_tasks
from silotune.engine.personalization import accept, draft, kept
from silotune.linalg import dense
from silotune.methods import IncompatibleMethodError
from silotune.optim import SGD
from silotune.privacy import ExampleLevel, Gaussian, Poisson, SiloStore
from silotune.runtimes import InProcess
from toys import adapter, agreed, axes, begin, experiment, silos, trainer

ROUNDS = 5

FOLDING = ["fedex-lora", "flora", "fedftg-seeded"]


@pytest.fixture
def clients(tmp_path):
    number = count()
    return lambda n=3, **changes: silos(n, home=tmp_path / str(next(number)), **changes)


class Wires:
    """Every client at its own end of a wire. It is sent what is new, if it holds the rest."""

    def __init__(self, inner: InProcess, away=()) -> None:
        self.inner, self.away = inner, set(away)
        self.held, self.sent = {}, []

    def clients(self):
        return self.inner.clients()

    def train(self, tasks):
        for task in tasks:
            if (task.client, task.round) in self.away:
                continue
            known = self.held.get(task.client)
            held = known is not None and known.round == task.round - 1
            blob = encode_task(task, leaning_on=state_digest(known) if held else "")
            self.sent.append((task.client, task.round, held, len(blob)))
            received = decode_task(blob, {state_digest(known): known}.get if held else None)
            assert received.factors.digest() == task.factors.digest()
            assert tensors_of(received.folded).digest() == tensors_of(task.folded).digest()
            self.held[task.client] = received
            yield from self.inner.train([received])


def run(a, runtime, state=None, **changes):
    exp = experiment(a, runtime.clients(), **({"rounds": ROUNDS} | changes))
    return list(federate(exp, runtime, state or begin(a)))


@every_method(part=(0, 4))
def test_what_is_sent_in_parts_arrives_whole(method, clients):
    a = plain(method)
    whole = run(a, InProcess(trainer(a), clients()))[-1].state
    wires = Wires(InProcess(trainer(a), clients()))
    assert everything(run(a, wires)[-1].state).digest() == everything(whole).digest()
    assert [held for _, _, held, _ in wires.sent] == [False] * 3 + [True] * (3 * ROUNDS - 3)


@every_method(part=(1, 4))
def test_bytes_down_are_those_of_the_messages(method, clients):
    a = plain(method)
    wires = Wires(InProcess(trainer(a), clients()), away={("silo-1", 1), ("silo-1", 3)})
    for r, done in enumerate(run(a, wires, quorum=2)):
        sent = sum(size for _, round, _, size in wires.sent if round == r)
        lost = {1: 1, 3: 1}.get(r, 0)  # what was sent to a client that did not answer is counted
        assert (done.bytes_down == sent) == (not lost)


def test_bytes_down_are_counted_for_names_and_seeds_of_any_length():
    a, seeds = plain("ffa-lora"), (0, 7, 10**9, 2**62)
    names = [ClientId(name) for name in ("a", "b", "é", 'odd "name"', "silo-10")]
    state = run(a, InProcess(trainer(a), silos(3)), rounds=1)[-1].state
    state = replace(state, latest=replace(state.latest, holders=frozenset(names[::2])))
    [task] = make_tasks(experiment(a, names[:1]), names[:1], state)
    tasks = [replace(task, client=c, seed=seed) for c in names for seed in seeds]
    assert bytes_to_all(tasks, state) == sum(bytes_to(each, state) for each in tasks)


@every_method(part=(2, 4))
def test_a_checkpoint_holds_all_that_goes_on(method, clients):
    a = plain(method)
    same = clients()
    half = run(a, InProcess(trainer(a), same), rounds=3)[-1].state
    back, name, config, _ = decode(encode(half, "law", "digest"))
    assert (name, config) == ("law", "digest")
    assert everything(back).digest() == everything(half).digest()
    assert (back.round, back.drawn, back.latest.keys) == (3, half.drawn, half.latest.keys)
    assert back.latest.holders == half.latest.holders == set(same)
    resumed = run(a, InProcess(trainer(a), same), back)
    whole = run(a, InProcess(trainer(a), clients()))
    assert everything(resumed[-1].state).digest() == everything(whole[-1].state).digest()
    assert resumed[0].bytes_down == whole[3].bytes_down


@every_method(part=(3, 4))
def test_a_client_that_missed_rounds_works_on_the_same_function(method, clients):
    """It is told everything that was folded while it was away, and so is one that joins late."""
    a = plain(method)
    missed = {("silo-1", 1), ("silo-1", 2), ("silo-2", 0), ("silo-2", 1), ("silo-2", 2)}
    away = Wires(InProcess(trainer(a), clients()), away=missed)
    rounds = run(a, away, quorum=1)
    assert [len(done.pooled.clients) for done in rounds] == [2, 1, 1, 3, 3]
    in_one_place = Absent(InProcess(trainer(a), clients()), missed)
    reference = run(a, in_one_place, quorum=1)
    assert everything(rounds[-1].state).digest() == everything(reference[-1].state).digest()
    held = {round: held for client, round, held, _ in away.sent if client == "silo-2"}
    assert held == {3: False, 4: True}


def test_personal_tensors_that_later_rounds_replaced_are_not_begun_anew(clients):
    a, same = plain("fedsa-lora"), clients()
    states = [done.state for done in run(a, InProcess(trainer(a), same))]
    with pytest.raises(ValueError, match="replaced by later rounds"):
        run(a, InProcess(trainer(a), same), states[0])


class Absent:
    """Some clients do not answer in some rounds."""

    def __init__(self, inner, away) -> None:
        self.inner, self.away = inner, away

    def clients(self):
        return self.inner.clients()

    def train(self, tasks):
        return self.inner.train([t for t in tasks if (t.client, t.round) not in self.away])


@pytest.mark.parametrize("method", some(FOLDING, "fedex-lora"))
def test_what_is_folded_is_cumulative_and_a_model_computes_with_it(method, clients):
    a = plain(method)
    states = [done.state for done in run(a, InProcess(trainer(a), clients()))]
    for before, after in pairwise(states):
        for site, increment in after.latest.folded.items():
            known = dense(before.folded[site]) if site in before.folded else 0.0
            torch.testing.assert_close(dense(after.folded[site]), known + dense(increment))
    b, last = trainer(a), states[-1]
    assert last.folded, "this method folds"
    b.adapted.load(last.factors, last.folded)
    for site, layer in b.adapted.layers.items():
        added = layer.scale * (dense(last.folded[site]) + last.factors.pair(site).dense())
        torch.testing.assert_close(layer.delta(), added)
        base = layer.weight.T if layer.transposed else layer.weight
        x = torch.randn(2, 3, base.shape[1])
        bias = 0 if layer.bias is None else layer.bias
        torch.testing.assert_close(layer(x), x @ (base + added).T + bias)


@pytest.mark.parametrize("method", some(FOLDING, "fedftg-seeded"))
def test_the_base_is_never_written_to(method, clients):
    a = plain(method)
    b = trainer(a)
    before = {s: layer.weight.clone() for s, layer in b.adapted.layers.items()}
    run(a, InProcess(b, clients()))
    assert all(torch.equal(b.adapted.layers[s].weight, w) for s, w in before.items())


@pytest.mark.parametrize("method", some(FOLDING, "flora"))
def test_nothing_of_a_fold_is_left_behind_in_the_model(method, clients):
    """The model of a process serves other clients, and other runs, after this one."""
    a = plain(method)
    used = trainer(a)
    run(a, InProcess(used, clients()))
    again = run(a, InProcess(used, clients()))[-1].state
    fresh = run(a, InProcess(trainer(a), clients()))[-1].state
    assert everything(again).digest() == everything(fresh).digest()


EXACT = [
    "ffa-lora",
    "fed-sb",
    "rolora",
    "fedsvd",
    "fedask",
    "fedex-lora",
    "flora",
    "fedftg",
    "fedftg-seeded",
    "rac-lora",
    "xgblora",
]


@pytest.mark.parametrize("method", EXACT)
def test_methods_that_claim_it_are_exact_in_every_round(method, clients):
    """Against the mean of the clients' own functions, unequal weights, alpha/r = 3."""
    a = plain(method)
    runtime = Recording(InProcess(trainer(a), clients()))
    exp = experiment(a, runtime.clients(), rounds=3)
    state, weights = begin(a), torch.tensor([1.0, 2.0, 3.0]) / 6
    for done in islice(federate(exp, runtime, state), 3):
        assert done.aggregation_error < 1e-9
        ends = [runtime.ends[c] for c in runtime.clients()]
        for site in ("up", "down"):
            means = [w * function(state, end, site) for w, end in zip(weights, ends, strict=True)]
            found = function(done.state, done.state.factors, site)
            torch.testing.assert_close(found, sum(means), rtol=1e-9, atol=1e-12)
        state = done.state


def function(state: GlobalState, factors: Factors, site: str) -> torch.Tensor:
    """What is added to the base (out, in), unscaled, with these factors in place of the state's."""
    whole = state.factors.updated(factors)
    if Key(site, Role.D) in whole:
        return whole[Key(site, Role.D)]
    folded = dense(state.folded[site]) if site in state.folded else 0.0
    return folded + whole.pair(site).dense()


class Recording:
    """Remembers what each client ended with."""

    def __init__(self, inner) -> None:
        self.inner, self.ends = inner, {}

    def clients(self):
        return self.inner.clients()

    def train(self, tasks):
        for result in self.inner.train(tasks):
            self.ends[result.client] = unpack(result.sealed)[0]
            yield result


RANKS = {ClientId("silo-0"): 1, ClientId("silo-1"): 3, ClientId("silo-2"): 2}


def mixed(method: str):
    return axes(method, SGD(lr=0.3), adapter(rank=3, alpha=6.0))


@pytest.mark.parametrize("method", ["flora", "flexlora"])
def test_clients_may_have_ranks_of_their_own(method, clients):
    a = mixed(method)
    runtime = Recording(Wires(InProcess(trainer(a), clients())))
    exp = experiment(a, runtime.clients(), rounds=3, ranks=RANKS)
    state, weights = begin(a), torch.tensor([1.0, 2.0, 3.0]) / 6
    for done in islice(federate(exp, runtime, state), 3):
        for site in ("up", "down"):
            ends = [runtime.ends[c].pair(site) for c in RANKS]
            assert [end.rank for end in ends] == [1, 3, 2]
            products = sum(w * end.dense() for w, end in zip(weights, ends, strict=True))
            if method == "flora":
                folded = dense(state.folded[site]) if site in state.folded else 0.0
                found = function(done.state, done.state.factors, site)
                torch.testing.assert_close(found, folded + products)
            else:
                u, s, v = torch.linalg.svd(products)
                best = (u[:, :3] * s[:3]) @ v[:3]
                torch.testing.assert_close(done.state.factors.pair(site).dense(), best)
                gap = torch.linalg.norm(products - best) / torch.linalg.norm(products)
                assert math.isfinite(gap)
        state = done.state


@every_method(lambda m: m not in {"flora", "flexlora", "xgblora", "hetlora"})
def test_rules_that_need_equal_ranks_say_so(method):
    with pytest.raises(IncompatibleMethodError, match=r"ranks"):
        experiment(plain(method), list(RANKS), ranks=RANKS)


def test_a_client_begins_from_the_first_directions_of_the_state(clients):
    a = mixed("flexlora")
    exp = experiment(a, list(RANKS), rounds=3, ranks=RANKS)
    done = next(federate(exp, InProcess(trainer(a), clients()), begin(a)))
    task = next(t for t in make_tasks(exp, list(RANKS), done.state) if t.client == "silo-0")
    b = Key("up", Role.B)
    assert torch.equal(task.factors[b], done.state.factors[b][:, :1])
    norms = torch.linalg.norm(done.state.factors[b], dim=0)
    assert (norms[:-1] >= norms[1:]).all(), "sorted by singular value"


def tampered(change):
    class Tampered(Recording):
        def train(self, tasks):
            for i, result in enumerate(self.inner.train(tasks)):
                shared, header = unpack(result.sealed)
                yield replace(result, sealed=pack(change(shared), header)) if not i else result

    return Tampered


def _set(value):
    def change(shared):
        key = next(iter(shared))
        tensor = shared[key].clone()
        tensor.view(-1)[0] = value
        return shared.updated({key: tensor})

    return change


HOSTILE = {
    "nan": (_set(math.nan), "not finite"),
    "infinite": (_set(math.inf), "not finite"),
    "huge": (_set(1e30), r"largest_update"),
    "large": (_set(2e4), r"largest_update"),
    "shape": (lambda s: s.map(lambda t: t[..., :1]), "differ from what was asked"),
    "missing": (lambda s: s.without({next(iter(s))}), "differ from what was asked"),
    "more": (lambda s: s.updated({Key("x", Role.B): torch.zeros(1)}), "differ from what was"),
}


@every_method(fault=sorted(HOSTILE))
def test_a_bad_update_is_refused_by_name_and_leaves_no_trace(method, fault, clients):
    change, words = HOSTILE[fault]
    a = plain(method)
    runtime = tampered(change)(InProcess(trainer(a), clients()))
    done = run(a, runtime, quorum=2, rounds=1)[0]
    assert done.pooled.clients == ("silo-1", "silo-2")
    assert math.isfinite(done.aggregation_error)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(done.pooled.missing["silo-0"])
    honest = Absent(InProcess(trainer(a), clients()), {("silo-0", 0)})
    expected = run(a, honest, quorum=2, rounds=1)[0]
    assert everything(done.state).digest() == everything(expected.state).digest()


@pytest.mark.parametrize("method", ["flora", "flexlora"])
def test_a_rank_that_was_not_asked_for_is_refused(method, clients):
    a = mixed(method)
    runtime = tampered(lambda s: s.cut(2))(InProcess(trainer(a), clients()))
    done = run(a, runtime, quorum=2, rounds=1, ranks=dict.fromkeys(RANKS, 3))[0]
    assert "differ from what was asked" in done.pooled.missing["silo-0"]


def test_rounds_that_nobody_paid_for_are_not_begun_from(clients, tmp_path, monkeypatch):
    """A charge that fails leaves nothing behind that a later round would tell of."""
    a = plain("fedsa-lora")
    mechanism = ExampleLevel(
        sampling=Poisson(0.5),
        noise=Gaussian(1.0),
        max_grad_norm=1.0,
        expected_batch_size=6.0,
        insecure_seed=3,
    )
    (silo,) = clients(1).values()
    private = replace(silo, privacy=mechanism)
    private.home.mkdir(parents=True)
    exp = experiment(a, [silo.client], private=True)
    runtime = InProcess(trainer(a), agreed(exp, {silo.client: private}))
    (task,) = make_tasks(exp, [silo.client], begin(a))
    with monkeypatch.context() as broken:

        def full(*_):
            raise OSError("no space left")

        broken.setattr(SiloStore, "releasing", full)
        (failed,) = runtime.train([task])
        assert failed.refusal
    later = replace(task, round=1)
    assert not kept(private.home, later)
    (good,) = runtime.train([task])
    assert not good.refusal
    assert kept(private.home, later).keys() == exp.plan(0).personal(begin(a).factors).keys()
    (again,) = runtime.train([task])
    assert (again.resent, again.sealed) == (True, good.sealed)


def test_a_round_that_is_asked_for_again_begins_where_it_did_whatever_was_missed(tmp_path):
    a = plain("fedsa-lora")
    (task,) = make_tasks(experiment(a, ["silo-0"]), ["silo-0"], begin(a))
    b = Key("up", Role.B)
    for round in (2, 7):
        one = replace(task, round=round)
        draft(tmp_path, one, "x", Factors({b: torch.full((1,), float(round))}))
        accept(tmp_path, one, "x")
        accept(tmp_path, one, "x")  # as a retry that sends the same bytes does
    assert kept(tmp_path, replace(task, round=7))[b].item() == 2.0
    assert kept(tmp_path, replace(task, round=9))[b].item() == 7.0
    assert not kept(tmp_path, replace(task, run="another", round=9))
