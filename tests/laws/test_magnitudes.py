"""No magnitude of what one client sends ends a round: it is refused, or gives nothing, or counts.

For every method, so for every rule, and for both privacy units: with a server that believes what it
is sent, within ``largest_update``, and with one that clips and hides its clients.
"""

import math
from dataclasses import dataclass, replace
from itertools import product

import pytest
import torch

from covering import every_method, plain
from silotune.aggregation import ServerAdam, ServerMomentum, ServerOptimizer, ServerYogi
from silotune.core import ClientId, ClientUpdate, Factors, Meter, bounded, largest_norm
from silotune.engine import Server, federate
from silotune.engine.channel import seal
from silotune.engine.server import RECORDS
from silotune.methods import IncompatibleMethodError
from silotune.privacy import ClientLevel, Gaussian, Poisson
from toys import begin, experiment

CLIENTS = [ClientId(f"silo-{i}") for i in range(3)]
LIAR = CLIENTS[1]
MAGNITUDES = [
    *(10.0**e for e in (-320, -300, -200, -154, -100, -20, 0, 20, 76, 77, 100, 154, 200, 308)),
    *(0.0, math.inf, -math.inf, math.nan),
]
PATTERNS = {
    "everywhere": lambda t, m: torch.where(t >= t.mean(), m, -m),
    "once": lambda t, m: torch.zeros_like(t).index_fill_(0, torch.tensor(0), m),
    "beside ordinary numbers": lambda t, m: t.clone().index_fill_(0, torch.tensor(0), m),
}


def sent(task, magnitude: float | None, pattern: str) -> Factors:
    """What a client that drew its update at random would send; None of it for the liar."""
    whole = task.plan.shared(task.factors.updated(drawn(task)))
    g = torch.Generator().manual_seed(len(task.client) + CLIENTS.index(task.client))
    honest = whole.map(lambda t: t + 0.1 * torch.randn(t.shape, generator=g, dtype=t.dtype))
    if magnitude is None:
        return honest
    return honest.map(lambda t: PATTERNS[pattern](t, magnitude))


def drawn(task) -> Factors:
    """The tensors that travel as a seed."""
    factors: dict = {}
    for seeded in task.seeded:
        born = DRAWN[0](seeded.seed)
        factors |= {key: born[key] for key in seeded.keys}
    return Factors(factors)


DRAWN: list = [None]


@dataclass
class Lying:
    """Two clients send ordinary updates; the third what it likes, or nothing at all."""

    magnitude: float | None = None
    pattern: str = "everywhere"
    absent: bool = False

    def clients(self):
        return CLIENTS

    def train(self, tasks):
        return map(self._answer, tasks)

    def evaluate(self, tasks):
        return []

    def _answer(self, task):
        lies = task.client == LIAR
        shared = sent(task, self.magnitude if lies else None, self.pattern)
        answer = ClientUpdate(
            run=task.run, round=task.round, client=task.client, sealed=seal(shared, task, shared)
        )
        return replace(answer, sealed=b"", refusal="absent") if lies and self.absent else answer


def open_rounds(method_axes, runtime):
    exp = experiment(method_axes, CLIENTS, rounds=2, quorum=2, largest_update=math.inf)
    DRAWN[0] = exp.draw
    return list(federate(exp, runtime, begin(method_axes)))


def hidden_rounds(method_axes, runtime, home):
    central = ClientLevel(
        clients=3,
        sampling=Poisson(1.0),
        noise=Gaussian(1.0),
        max_update_norm=1.0,
        insecure_seed=0,
    )
    weights = dict.fromkeys(CLIENTS, 1.0)
    exp = experiment(method_axes, CLIENTS, rounds=2, central=central, weights=weights)
    DRAWN[0] = exp.draw
    return list(federate(exp, runtime, begin(method_axes), Server(home=home)))


def numbers(state):
    yield from state.factors.values()
    yield from state.memory.values()
    for matrix in state.folded.values():
        yield from (matrix,) if isinstance(matrix, torch.Tensor) else (matrix.left, matrix.right)


def rounds_of_a_liar(rounds, alone, cases):
    """Every pattern and magnitude that broke the law, with what happened instead."""
    wrong = []
    for pattern, magnitude in cases:
        try:
            last = rounds(Lying(magnitude, pattern))[-1]
        except Exception as error:
            wrong.append((pattern, magnitude, repr(error)))
            continue
        if not all(t.isfinite().all() for t in numbers(last.state)):
            wrong.append((pattern, magnitude, "a state that is not finite"))
        if not alone(last, magnitude, last.state.factors.digest()):
            wrong.append((pattern, magnitude, "the others' sum changed"))
    return wrong


EVERY_CASE = list(product(PATTERNS, MAGNITUDES))
EDGES = [  # where squares, products and sums of them overflow or vanish, and what is no number
    ("everywhere", 10.0**-320),
    ("once", 10.0**-154),
    ("everywhere", 10.0**76),
    ("beside ordinary numbers", 10.0**77),
    ("everywhere", 10.0**154),
    ("once", 10.0**308),
    ("beside ordinary numbers", math.inf),
    ("once", math.nan),
]
extent = [
    pytest.param(EDGES, id="edges"),
    pytest.param(EVERY_CASE, id="all", marks=pytest.mark.full),
]


def test_the_edges_are_cases_and_every_pattern_is_among_them():
    assert set(EDGES) <= set(EVERY_CASE)
    assert {pattern for pattern, _ in EDGES} == PATTERNS.keys()


@every_method(part=(0, 2))
@pytest.mark.parametrize("cases", extent)
def test_a_server_that_hides_nobody_refuses_it_or_counts_it(method, cases):
    method_axes = plain(method)
    without = open_rounds(method_axes, Lying(absent=True))[-1].state.factors.digest()

    def alone(last, magnitude, digest):
        if LIAR in last.pooled.clients:
            return abs(magnitude) <= largest_norm(torch.float64)  # false for NaN
        assert "refused" in last.pooled.missing[LIAR]
        return digest == without

    assert rounds_of_a_liar(lambda r: open_rounds(method_axes, r), alone, cases) == []


@every_method(part=(1, 2))
@pytest.mark.parametrize("cases", extent)
def test_a_server_that_hides_its_clients_takes_no_more_than_the_bound(method, cases, tmp_path):
    method_axes = plain(method)
    homes = iter(range(1000))

    def rounds(runtime):
        return hidden_rounds(method_axes, runtime, tmp_path / str(next(homes)))

    try:
        without = rounds(Lying(absent=True))[-1].state.factors.digest()
    except IncompatibleMethodError:
        pytest.skip("keeps tensors at home: refused under this unit")

    def alone(last, magnitude, digest):
        believed = abs(magnitude) <= largest_norm(torch.float64)  # false for NaN
        return believed or digest == without

    assert rounds_of_a_liar(rounds, alone, cases) == []


@pytest.mark.parametrize("step", [ServerMomentum(), ServerAdam(), ServerYogi()], ids=str)
@pytest.mark.parametrize("method", ["fedit", "fedex-lora", "lora-fair"])
@pytest.mark.parametrize("cases", extent)
def test_neither_does_a_server_optimiser(method, step, cases):
    method_axes = plain(method)
    method_axes = replace(
        method_axes, aggregator=ServerOptimizer(inner=method_axes.aggregator, step=step)
    )
    without = open_rounds(method_axes, Lying(absent=True))[-1].state.factors.digest()

    def alone(last, magnitude, digest):
        return LIAR in last.pooled.clients or digest == without

    assert rounds_of_a_liar(lambda r: open_rounds(method_axes, r), alone, cases) == []


def test_another_type_than_the_states_is_refused():
    """Or a float64 of 1e200 would be judged by what float64 can hold, and be infinite here."""

    class Wide(Lying):
        def _answer(self, task):
            answer = super()._answer(task)
            shared = sent(task, None, self.pattern)
            narrow = shared.map(lambda t: t.float()) if task.client == LIAR else shared
            return replace(answer, sealed=seal(narrow, task, narrow))

    last = open_rounds(plain("fedit"), Wide())[-1]
    assert "tensors differ" in last.pooled.missing[LIAR]


def boasted(records: float):
    """The round in which a client that declared twelve records says that it has so many."""

    class Boasting(Lying):
        def _answer(self, task):
            answer = super()._answer(task)
            said = records if task.client == LIAR else 12.0
            return replace(answer, meters={RECORDS: Meter(said, 1.0)})

    method_axes = plain("fedex-lora")
    weights = dict.fromkeys(CLIENTS)
    declared = dict.fromkeys(CLIENTS, 12)
    exp = experiment(method_axes, CLIENTS, rounds=1, quorum=2, weights=weights, declared=declared)
    DRAWN[0] = exp.draw
    [last] = federate(exp, Boasting(), begin(method_axes))
    return last


@pytest.mark.parametrize("records", [math.inf, math.nan])
def test_a_number_of_records_that_is_none_is_refused(records):
    assert LIAR in boasted(records).pooled.missing


@pytest.mark.parametrize("records", [1e308, 2.0**54])
def test_a_number_of_records_counts_for_twice_what_was_declared_at_most(records):
    most, boast = boasted(24.0), boasted(records)
    assert not boast.pooled.missing
    assert boast.state.factors.digest() == most.state.factors.digest()
    assert boast.state.factors.digest() != boasted(12.0).state.factors.digest()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_bounded_can_be_multiplied_and_measured_in_its_own_type(dtype):
    most = largest_norm(dtype)
    b, a = torch.full((4, 1), most / 2, dtype=dtype), torch.full((1, 16), most / 4, dtype=dtype)
    assert b.norm() == a.norm() == most
    assert bounded(b)
    assert bounded(a)
    assert not bounded(b * 1.001)
    for value in ((b @ a).square().sum(), (b @ a) @ a.mT, b @ a + b @ a):
        assert value.isfinite().all()
    for wild in (math.inf, math.nan):
        assert not bounded(torch.tensor([0.0, wild], dtype=dtype))
    assert bounded(torch.zeros(3, dtype=dtype))
    assert bounded(torch.full((3,), torch.finfo(dtype).tiny / 8, dtype=dtype))
