"""A tail average: for every method, the mean of its last models' weights, or refused in words.

The reference multiplies out what each state adds, and knows neither sums nor products of ours.
"""

from dataclasses import replace

import pytest
import torch

from covering import every_method, fitting
from silotune.adapters import Init
from silotune.aggregation import ServerMomentum
from silotune.core import ClientId, GlobalState, Key, Role, decode_task, encode_task, state_digest
from silotune.engine import federate
from silotune.engine.checkpoint import decode, encode, everything
from silotune.engine.client_agreement import NotAgreedError
from silotune.engine.loop import make_tasks
from silotune.engine.tail_average import NAME, TailAverage, tail_start
from silotune.linalg import dense
from silotune.methods import IncompatibleMethodError, built_in
from silotune.methods.axes import refuse_averaged, with_server
from silotune.optim import SGD
from silotune.runtimes import InProcess
from toys import adapter, agreed, axes, begin, experiment, first_factors, silos, trainer

ROUNDS, SHARE, START = 7, 0.6, 2

REFUSED = {"fedsa-lora", "dora", "reslora", "milora", "mole"}
"""What silos keep to themselves, a norm, what other layers read, routers."""

LINKS = {"cola": 2, "rac-lora": 2, "fedftg-seeded": 2}
"""Folds within the tail and before it."""


def at_work(name, **options):
    chain = {"fold_every": LINKS[name]} if name in LINKS else {}
    return axes(name, fitting(name)[0], **chain, **options)


def run(a, tail=True, state=None, **changes):
    """The experiment, and the states after each round."""
    own = silos()
    exp = experiment(a, list(own), rounds=ROUNDS, **changes)
    if tail:
        average = TailAverage(
            start=tail_start(SHARE, ROUNDS),
            roles=a.trained(),
            fixed=exp.fixed,
            turning=a.turning,
        )
        exp = replace(exp, tail=average)
    rounds = federate(exp, InProcess(trainer(a), own), state or begin(a))
    return exp, [done.state for done in rounds]


def weight(state: GlobalState, site: str) -> torch.Tensor:
    """All that a state adds at a site, unscaled."""
    own = {role: state.factors.get(Key(site, role)) for role in Role}
    if own[Role.D] is not None:
        total = own[Role.D]
    else:
        core = torch.eye(len(own[Role.A])) if own[Role.R] is None else own[Role.R]
        total = own[Role.B] @ core @ own[Role.A]
    return total + (dense(state.folded[site]) if site in state.folded else 0.0)


def mean_of(states, part):
    return sum(part(state) for state in states) / len(states)


def assert_mean(a, result: GlobalState, states, close: float = 1e-12) -> None:
    """Of heads and layers, as the model computes them.

    Args:
        close: to what layers know their own base; parts of the weight are float32.
    """
    held = trainer(a).adapted
    held.load(result.factors, result.folded)
    for key in result.factors.only({Role.HEAD}):
        expected = mean_of(states, lambda state, key=key: state.factors[key])
        torch.testing.assert_close(result.factors[key], expected, rtol=1e-12, atol=1e-14)
    moved = not held.layers
    for site, layer in held.layers.items():
        expected = mean_of(states, lambda state, site=site: weight(state, site))
        moved |= not torch.allclose(expected, weight(states[-1], site), rtol=1e-3)
        torch.testing.assert_close(weight(result, site), expected, rtol=1e-10, atol=1e-12)
        delta = a.adapter.scale * (
            expected - weight(GlobalState(round=0, factors=first_factors(a.adapter)), site)
        )
        torch.testing.assert_close(layer.delta(), delta, rtol=1e-9, atol=close)
    assert moved, "the last state would have done"


@every_method(lambda name: name not in REFUSED)
def test_it_is_the_mean_of_the_last_models_weights(method):
    a = at_work(method)
    exp, states = run(a)
    assert exp.tail.start == START
    assert_mean(a, exp.tail.mean(states[-1]), states[START:])


@every_method(lambda name: name not in REFUSED)
def test_rounds_go_on_as_without_it_and_a_resumed_one_ends_in_the_same_bits(method):
    a = at_work(method)
    exp, states = run(a)
    _, plain = run(a, tail=False)
    for with_tail, without in zip(states, plain, strict=True):
        memory = {n: t for n, t in with_tail.memory.items() if not n.startswith(NAME)}
        assert (
            everything(replace(with_tail, memory=memory)).digest() == everything(without).digest()
        )
    for i in (0, START, ROUNDS - 2):
        state, *_ = decode(encode(states[i], "law", ""))
        _, rest = run(a, state=state)
        assert everything(rest[-1]).digest() == everything(states[-1]).digest()
        ends = [exp.tail.mean(each[-1]) for each in (rest, states)]
        assert everything(ends[0]).digest() == everything(ends[1]).digest()


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_where_states_have_no_mean_that_is_a_model_it_is_refused(name):
    with pytest.raises(IncompatibleMethodError, match=r"^tail_average: .*; set it to 0$"):
        refuse_averaged(at_work(name))


def test_no_other_method_refuses_it():
    for name in built_in().keys() - REFUSED:
        refuse_averaged(at_work(name))


@pytest.mark.parametrize("name", ["ffa-lora", "fed-sb", "fedftg", "head-only", "lora-fa"])
def test_where_one_factor_moves_the_rank_stays(name):
    exp, states = run(at_work(name))
    result = exp.tail.mean(states[-1])
    assert not result.folded
    assert not any("product" in name or "added" in name for name in states[-1].memory)


@pytest.mark.parametrize("init", [Init.PISSA, Init.OLORA])
@pytest.mark.parametrize("name", ["fedit", "ffa-lora"])
def test_pairs_that_begin_in_the_weight_have_it_too(name, init):
    a = axes(name, SGD(lr=0.1), replace(adapter(), init=init))
    exp, states = run(a)
    assert_mean(a, exp.tail.mean(states[-1]), states[START:], close=1e-6)


def test_with_a_servers_momentum_its_moments_stay():
    a = with_server(at_work("fedit"), ServerMomentum(momentum=0.7))
    exp, states = run(a)
    assert_mean(a, exp.tail.mean(states[-1]), states[START:])
    assert any(name.startswith("ServerMomentum") for name in states[-1].memory)


def test_before_there_are_two_states_it_is_the_last_one():
    exp, states = run(at_work("fedit"))
    for state in states[: START + 1]:
        assert exp.tail.mean(state) is state
    assert exp.tail.mean(states[START + 1]) is not states[START + 1]


@pytest.mark.parametrize(
    ("share", "rounds", "start"),
    [(0.5, 20, 10), (0.1, 30, 27), (0.001, 20, 19), (1.0, 20, 0), (0.5, 5, 2), (0.3, 10, 7)],
)
def test_a_share_is_so_many_rounds_rounded_up_and_one_at_least(share, rounds, start):
    assert tail_start(share, rounds) == start


@every_method(lambda name: name not in REFUSED)
def test_every_client_takes_the_mean_after_any_round(method):
    """Also of pairs of which one factor never moves: what no round trains is as it began."""
    exp, states = run(at_work(method))
    own = agreed(exp, silos())
    for state in states:
        for task in make_tasks(exp, list(own), exp.tail.mean(state)):
            own[task.client].agreement.check_result(decode_task(encode_task(task), {}.get))


@pytest.mark.parametrize("name", ["fedit", "ffa-lora", "cola"])
def test_a_client_takes_the_mean_as_a_result_and_nothing_of_the_kind_as_an_order(name):
    """Sent whole, though the client holds the state before."""
    a = at_work(name)
    exp, states = run(a)
    own = agreed(exp, silos())
    client = ClientId("silo-1")
    [before] = make_tasks(exp, [client], states[-2])
    [task] = make_tasks(exp, [client], exp.tail.mean(states[-1]))
    arrived = decode_task(encode_task(task, leaning_on=state_digest(before)), {}.get)
    own[client].agreement.check_result(arrived)
    own[client].agreement.check_scoring(arrived)
    assert arrived.factors.digest() == task.factors.digest()
    if name == "fedit":
        early = exp.tail.mean(states[-2])
        [order] = make_tasks(exp, [client], early)
        with pytest.raises(NotAgreedError, match="folded"):
            own[client].agreement.check_training(order)
        plain = replace(exp, tail=None)
        with pytest.raises(NotAgreedError, match="folded"):
            agreed(plain, silos())[client].agreement.check_result(task)
