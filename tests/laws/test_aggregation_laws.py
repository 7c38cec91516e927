"""What every aggregation rule must obey, each against a dense reference written here in numpy.

Rules never see alpha: nothing that they read or write is scaled, so scale-freeness needs no law.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from covering import every_combination
from silotune.aggregation import (
    Aggregator,
    Combined,
    FairCosine,
    FairRidge,
    Fold,
    Mean,
    Refactor,
    Residual,
    ServerAdam,
    ServerMomentum,
    ServerOptimizer,
    ServerYogi,
    Sketch,
    Truncate,
    aggregation_error,
)
from silotune.core import ClientMean, Factors, GlobalState, Key, Role, Statistics
from silotune.linalg import LowRank, dense

A, B, HEAD = Key("q", Role.A), Key("q", Role.B), Key("head", Role.HEAD, "bias")
RANK, RIDGE = 2, 0.3
SHAPES = [(7, 5), (5, 7), (6, 6), (40, 24)]  # (out, in); the last one keeps its stacks

BOTH: dict[str, Aggregator] = {
    "Mean": Mean(),
    "Residual": Residual(),
    "Residual(1)": Residual(rank=1),
    "Fold": Fold(),
    "Truncate": Truncate(rank=RANK),
    "Truncate(1)": Truncate(rank=1),
    "Truncate(unbalanced)": Truncate(rank=RANK, balanced=False),
    "Sketch(pair)": Sketch(rank=RANK, oversampling=2, b_alone=False),
    "FairCosine": FairCosine(),
    "FairCosine(squared)": FairCosine(squared=True),
    "FairRidge": FairRidge(ridge=RIDGE),
    "FairRidge(0)": FairRidge(ridge=0.0),
    "ServerMomentum": ServerOptimizer(inner=Residual(), step=ServerMomentum()),
    "ServerAdam": ServerOptimizer(inner=Mean(), step=ServerAdam(learning_rate=0.1)),
    "ServerYogi": ServerOptimizer(inner=FairRidge(ridge=RIDGE), step=ServerYogi(learning_rate=0.1)),
}
ONLY_B: dict[str, Aggregator] = {
    "Refactor": Refactor(),
    "Refactor(2)": Refactor(every=2),
    "Refactor(randomised)": Refactor(randomised=True),
    "Sketch": Sketch(rank=RANK),
}
RULES = BOTH | ONLY_B
EXACT = {k: RULES[k] for k in ("Residual", "Fold", "Refactor", "Refactor(2)", "Sketch")}
RATIONAL = ("Residual", "Fold", "Truncate", "Truncate(unbalanced)")  # functions of E[BA] alone

few = settings(max_examples=6)  # of every rule and every shape
seeds = st.integers(0, 10_000)
weightings = st.lists(st.floats(0.1, 9.0), min_size=1, max_size=6)
every_shape = pytest.mark.parametrize("shape", SHAPES, ids=str)


def over(rules: dict[str, Aggregator]):
    return pytest.mark.parametrize("name", rules)


@dataclass(frozen=True)
class Round:
    """A state, and what clients of these weights send back."""

    state: GlobalState
    updates: list[Factors]
    weights: list[float]

    @cached_property
    def mean(self) -> ClientMean:
        ranks = {u[B].shape[1] for u in self.updates if B in u}
        parts = [
            Statistics.of(u, w, ranks_differ=len(ranks) > 1)
            for u, w in zip(self.updates, self.weights, strict=True)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total.mean()

    def combine(self, rule: Aggregator) -> Combined:
        return rule.combine(self.state, self.mean)

    def step(self, rule: Aggregator) -> np.ndarray:
        """What B'A' + R comes to."""
        return step(self.state, self.combine(rule))

    def error(self, rule: Aggregator) -> float:
        return aggregation_error(self.mean, self.state.factors, self.combine(rule))

    def average(self, key: Key) -> np.ndarray:
        w = np.array(self.weights) / sum(self.weights)
        return sum(c * u[key].double().numpy() for c, u in zip(w, self.updates, strict=True))

    @cached_property
    def ideal(self) -> np.ndarray:
        w = np.array(self.weights) / sum(self.weights)
        whole = [self.state.factors.updated(u) for u in self.updates]
        return sum(c * product(u) for c, u in zip(w, whole, strict=True))


def product(factors: Factors) -> np.ndarray:
    b, a = (factors[k].double().numpy() for k in (B, A))
    rank = min(b.shape[1], a.shape[0])
    return b[:, :rank] @ a[:rank]


def step(state: GlobalState, combined: Combined) -> np.ndarray:
    result = product(state.factors.updated(combined.factors))
    if "q" in combined.residual:
        result = result + dense(combined.residual["q"]).double().numpy()
    return result


def draw(shape: tuple[int, int], rank: int, g: torch.Generator) -> Factors:
    out, into = shape
    return Factors(
        {
            A: torch.randn(rank, into, generator=g),
            B: torch.randn(out, rank, generator=g),
            HEAD: torch.randn(3, generator=g),
        }
    )


def a_round(
    shape: tuple[int, int],
    seed: int,
    weights: Sequence[float],
    *,
    shared: Sequence[Key] = (A, B, HEAD),
    ranks: Sequence[int] | None = None,
) -> Round:
    g = torch.Generator().manual_seed(seed)
    ranks = ranks or [RANK] * len(weights)
    state = GlobalState(round=seed % 4, factors=draw(shape, max(ranks), g))
    updates = [Factors({k: draw(shape, r, g)[k] for k in shared}) for r in ranks]
    return Round(state, updates, list(weights))


def round_for(name: str, shape: tuple[int, int], seed: int, weights: Sequence[float]) -> Round:
    shared = (A, B, HEAD) if name in BOTH else (B, HEAD)
    return a_round(shape, seed, weights, shared=shared)


def tail(matrix: np.ndarray, rank: int) -> float:
    """The least Frobenius error of that rank (Eckart and Young)."""
    return float(np.linalg.norm(np.linalg.svd(matrix, compute_uv=False)[rank:]))


def close(one: np.ndarray, two: np.ndarray, atol: float = 1e-9) -> None:
    np.testing.assert_allclose(one, two, atol=atol * (1 + np.abs(two).max()), rtol=0)


# --- the identity: E[BA] = B'A' + R + error -------------------------------------------------------


@every_combination(name=list(EXACT), shape=SHAPES)
@few
@given(seed=seeds, w=weightings)
def test_exact_rules_have_no_error(name, shape, seed, w):
    r = round_for(name, shape, seed, w)
    close(r.step(RULES[name]), r.ideal)
    assert r.error(RULES[name]) < 1e-12


@every_shape
@few
@given(seed=seeds, w=weightings)
def test_a_random_sketch_loses_nothing_of_full_rank(shape, seed, w):
    r = round_for("Refactor(randomised)", shape, seed, w)
    close(r.step(Refactor(randomised=True)), r.ideal)


@every_combination(name=list(RULES), shape=SHAPES)
@few
@given(seed=seeds, w=weightings)
def test_the_error_is_the_distance_from_the_ideal(name, shape, seed, w):
    r = round_for(name, shape, seed, w)
    if name in ONLY_B:
        assert r.error(RULES[name]) == 0.0
        return
    truth = np.linalg.norm(r.ideal - r.step(RULES[name])) / np.linalg.norm(r.ideal)
    assert r.error(RULES[name]) == pytest.approx(truth, rel=1e-5, abs=1e-12)


@every_shape
@few
@given(seed=seeds, w=weightings)
def test_the_error_of_the_mean_is_the_covariance(shape, seed, w):
    r = a_round(shape, seed, w)
    p = np.array(w) / sum(w)
    covariance = sum(
        c * (u[B].numpy() - r.average(B)) @ (u[A].numpy() - r.average(A))
        for c, u in zip(p, r.updates, strict=True)
    )
    close(r.ideal - r.step(Mean()), covariance)


@every_shape
@few
@given(seed=seeds, w=weightings, rank=st.integers(1, 4))
def test_a_cut_residual_leaves_its_tail(shape, seed, w, rank):
    r = a_round(shape, seed, w)
    least = tail(r.ideal - r.average(B) @ r.average(A), rank)
    left = np.linalg.norm(r.ideal - r.step(Residual(rank=rank)))
    assert left == pytest.approx(least, rel=1e-7, abs=1e-10)


@every_shape
@few
@given(seed=seeds, w=weightings, rank=st.integers(1, RANK), balanced=st.booleans())
def test_truncation_is_the_best_of_its_rank(shape, seed, w, rank, balanced):
    r = a_round(shape, seed, w)
    left = np.linalg.norm(r.ideal - r.step(Truncate(rank=rank, balanced=balanced)))
    assert left == pytest.approx(tail(r.ideal, rank), rel=1e-7, abs=1e-10)


@every_shape
@few
@given(seed=seeds, w=weightings)
def test_nothing_of_that_rank_beats_truncation(shape, seed, w):
    r = a_round(shape, seed, w)
    best = r.error(Truncate(rank=RANK))
    assert all(
        best <= r.error(rule) + 1e-12 for rule in (Mean(), FairRidge(ridge=0.0), FairCosine())
    )


def test_two_clients_that_differ_make_an_error():
    """Without this, a world in which nothing is ever wrong would pass."""
    r = a_round((7, 5), 0, [1.0, 1.0])
    inexact = ("Mean", "Residual(1)", "Truncate(1)", "FairRidge", "FairRidge(0)", "FairCosine")
    assert all(r.error(RULES[name]) > 0.05 for name in inexact)


# --- FedSVD ---------------------------------------------------------------------------------------


@every_combination(randomised=[False, True], shape=SHAPES)
@few
@given(seed=seeds, w=weightings)
def test_refactored_pairs_are_the_svd(shape, randomised, seed, w):
    r = a_round(shape, seed, w, shared=(B, HEAD))
    after = r.combine(Refactor(randomised=randomised)).factors
    a, b = after[A].numpy(), after[B].numpy()
    close(a @ a.T, np.eye(RANK))
    values = np.linalg.svd(r.ideal, compute_uv=False)[:RANK]
    close(b.T @ b, np.diag(values**2))


@pytest.mark.parametrize("every", [1, 2, 3])
def test_refactoring_waits_for_its_round(every):
    r = a_round((7, 5), 0, [1.0, 2.0], shared=(B, HEAD))
    for number in range(6):
        state = GlobalState(round=number, factors=r.state.factors)
        moved = A in Refactor(every=every).combine(state, r.mean).factors
        assert moved == ((number + 1) % every == 0)


def test_refactoring_refuses_pairs_of_which_both_moved():
    with pytest.raises(ValueError, match="only B"):
        a_round((7, 5), 0, [1.0, 2.0]).combine(Refactor())


def test_refactoring_more_rows_than_outputs():
    """(out, r) = (2, 3): the third column of B' is zero, the rows of A' are orthonormal still."""
    r = a_round((2, 9), 0, [1.0, 2.0], shared=(B, HEAD), ranks=[3, 3])
    for rule in (Refactor(), Refactor(randomised=True)):
        close(r.step(rule), r.ideal)
        a = r.combine(rule).factors[A].numpy()
        close(a @ a.T, np.eye(3))
    with pytest.raises(ValueError, match="do not fit"):
        a_round((9, 2), 0, [1.0], shared=(B, HEAD), ranks=[3]).combine(Refactor())


# --- one client, no client's move, many clients ---------------------------------------------------

COPYING = {k: r for k, r in RULES.items() if not k.startswith(("Server", "Truncate(1)"))}


@every_combination(name=list(COPYING), shape=SHAPES)
@few
@given(seed=seeds, weight=st.floats(0.1, 9.0))
def test_one_client_is_copied(name, shape, seed, weight):
    r = round_for(name, shape, seed, [weight])
    close(r.step(RULES[name]), r.ideal)
    close(r.combine(RULES[name]).factors[HEAD].numpy(), r.updates[0][HEAD].numpy())


@over({k: RULES[k] for k in ("Mean", "Residual", "FairRidge", "FairCosine")})
@given(seed=seeds)
def test_one_client_is_copied_bit_for_bit_in_single_precision(name, seed):
    r = single(a_round((40, 24), seed, [3.7]))
    combined = r.combine(RULES[name])
    assert torch.equal(combined.factors[A], r.updates[0][A])
    bits = name in ("Mean", "Residual")
    np.testing.assert_allclose(combined.factors[B], r.updates[0][B], rtol=0 if bits else 2e-7)
    assert not combined.residual


@every_combination(name=list(RULES), shape=SHAPES)
@pytest.mark.parametrize("clients", [1, 3])
def test_where_no_b_has_moved_from_zero_nothing_comes_out(name, shape, clients):
    r = round_for(name, shape, 0, [1.0] * clients)
    still = {B: torch.zeros_like(r.state.factors[B])}
    state = GlobalState(round=0, factors=r.state.factors.updated(still))
    r = Round(state, [u.updated(still) for u in r.updates], r.weights)
    combined = r.combine(RULES[name])
    assert np.abs(step(state, combined)).max() == 0.0
    assert r.error(RULES[name]) == 0.0
    rows = state.factors.updated(combined.factors)[A].norm(dim=1)
    assert (rows > 1e-3).all(), "a pair of zeros would never learn again"


@every_combination(name=list(RULES), shape=SHAPES)
def test_many_clients(name, shape):
    """The stack of products has long turned dense."""
    r = round_for(name, shape, 0, [1.0 + k % 3 for k in range(60)])
    if name in BOTH:
        assert isinstance(r.mean.product["q"], torch.Tensor)
    combined = r.combine(RULES[name])
    close(r.ideal, step(r.state, combined) + (r.ideal - r.step(RULES[name])))
    if name in EXACT:
        close(r.step(RULES[name]), r.ideal)


# --- symmetries -----------------------------------------------------------------------------------


@every_combination(name=list(RULES), shape=SHAPES)
@few
@given(seed=seeds, w=weightings, c=st.floats(0.5, 5.0))
def test_order_of_clients_and_unit_of_weights_are_irrelevant(name, shape, seed, w, c):
    r = round_for(name, shape, seed, w)
    other = Round(r.state, r.updates[::-1], [c * x for x in w[::-1]])
    if name.startswith("Truncate") and near_tie(r.ideal, RULES[name].rank):
        return
    close(other.step(RULES[name]), r.step(RULES[name]), atol=1e-6)
    one, two = (x.combine(RULES[name]).factors[HEAD].numpy() for x in (other, r))
    close(one, two)


def near_tie(matrix: np.ndarray, rank: int) -> bool:
    values = np.append(np.linalg.svd(matrix, compute_uv=False), 0.0)
    return values[rank - 1] - values[rank] < 1e-4 * values[0]


@every_combination(name=RATIONAL, shape=SHAPES)
@few
@given(seed=seeds, w=weightings)
def test_a_clients_gauge_is_irrelevant(name, shape, seed, w):
    """(B G, G^-1 A) is the same update."""
    r = a_round(shape, seed, w)
    g = torch.Generator().manual_seed(seed)
    turned = []
    for u in r.updates:
        gauge = torch.randn(RANK, RANK, generator=g) + 3 * torch.eye(RANK)
        pair = {B: u[B] @ gauge, A: torch.linalg.solve(gauge, u[A])}
        turned.append(u.updated(pair))
    if name.startswith("Truncate") and near_tie(r.ideal, RULES[name].rank):
        return
    close(Round(r.state, turned, w).step(RULES[name]), r.step(RULES[name]), atol=1e-6)


def test_the_mean_does_see_the_gauge():
    r = a_round((7, 5), 0, [1.0, 1.0])
    flipped = r.updates[1].map(torch.neg).updated({HEAD: r.updates[1][HEAD]})
    turned = Round(r.state, [r.updates[0], flipped], r.weights)
    close(turned.ideal, r.ideal)
    assert np.abs(turned.step(Mean()) - r.step(Mean())).max() > 0.1


# --- unequal ranks --------------------------------------------------------------------------------


@every_combination(name=["Fold", "Truncate", "Truncate(unbalanced)"], shape=SHAPES)
@few
@given(seed=seeds, ranks=st.lists(st.integers(1, 4), min_size=1, max_size=5))
def test_unequal_ranks(name, shape, seed, ranks):
    r = a_round(shape, seed, [1.0 + k for k in range(len(ranks) + 1)], ranks=[*ranks, RANK])
    rule = RULES[name]
    combined = r.combine(rule)
    assert combined.factors[B].shape == r.state.factors[B].shape
    if name == "Fold":
        close(r.step(rule), r.ideal)
        return
    after = r.state.factors.updated(r.combine(rule).factors)
    for first in range(1, RANK + 1):  # the part of a client of that rank is the best of it
        left = np.linalg.norm(r.ideal - product(after.cut(first)))
        assert left == pytest.approx(tail(r.ideal, first), rel=1e-7, abs=1e-10)


def test_only_rules_of_products_mix_ranks():
    assert {k for k, r in RULES.items() if r.mixes_ranks} == {
        "Fold", "Truncate", "Truncate(1)", "Truncate(unbalanced)"
    }  # fmt: skip


def test_truncation_to_more_than_a_pair_holds_is_refused():
    with pytest.raises(ValueError, match=r"r: 3"):
        a_round((7, 5), 0, [1.0]).combine(Truncate(rank=3))


@every_shape
def test_truncation_keeps_pairs_alive_beyond_the_rank_of_the_mean(shape):
    r = a_round(shape, 0, [1.0, 2.0], ranks=[1, 1])
    wide = GlobalState(round=0, factors=draw(shape, 3, torch.Generator().manual_seed(1)))
    r = Round(wide, r.updates, r.weights)
    combined = r.combine(Truncate(rank=3))
    close(step(wide, combined), r.ideal)
    assert combined.factors[B][:, 2].abs().max() == 0.0
    assert torch.equal(combined.factors[A][2], wide.factors[A][2])


# --- number types, sizes, what is left alone ------------------------------------------------------


def single(r: Round) -> Round:
    state = GlobalState(round=r.state.round, factors=r.state.factors.map(torch.Tensor.float))
    return Round(state, [u.map(torch.Tensor.float) for u in r.updates], r.weights)


@every_combination(name=list(RULES), shape=SHAPES)
@few
@given(seed=seeds, w=weightings)
def test_single_precision_in_single_precision_out(name, shape, seed, w):
    r = single(round_for(name, shape, seed, w))
    combined = r.combine(RULES[name])
    assert all(t.dtype is torch.float32 for t in combined.factors.values())
    if name in EXACT:
        close(step(r.state, combined), r.ideal, atol=1e-6)
        assert r.error(RULES[name]) < 1e-6


@pytest.mark.parametrize("clients", [1, 2, 4])
@pytest.mark.parametrize("precise", [True, False])
def test_the_residual_is_as_small_as_the_covariance(clients, precise):
    """Rank (K - 1) r at most: for two silos it is no more than a pair."""
    r = a_round((40, 24), 0, [1.0 + k for k in range(clients)])
    combined = (r if precise else single(r)).combine(Residual())
    residual = combined.residual.get("q")
    assert (residual.rank if isinstance(residual, LowRank) else 0) == (clients - 1) * RANK


@over(BOTH)
def test_nothing_is_multiplied_out_where_the_stack_is_smaller(name, monkeypatch):
    r = a_round((40, 24), 0, [1.0, 2.0, 4.0])
    monkeypatch.setattr(LowRank, "dense", lambda self: pytest.fail("multiplied out"))
    combined = r.combine(RULES[name])
    assert all(isinstance(m, LowRank) for m in combined.residual.values())
    aggregation_error(r.mean, r.state.factors, combined)


@over(RULES)
def test_rules_are_pure(name):
    r = round_for(name, (7, 5), 0, [1.0, 2.0])
    before = [f.digest() for f in (r.state.factors, *r.updates)]
    one, two = r.combine(RULES[name]), r.combine(RULES[name])
    assert one.factors.digest() == two.factors.digest()
    assert before == [f.digest() for f in (r.state.factors, *r.updates)]


@over(BOTH)
def test_heads_alone_are_averaged(name):
    """A round that shares no pair, as in a linear probe."""
    r = a_round((7, 5), 0, [1.0, 3.0], shared=(HEAD,))
    combined = r.combine(RULES[name])
    assert set(combined.factors) == {HEAD}
    assert not combined.residual
    if not name.startswith("Server"):
        close(combined.factors[HEAD].numpy(), r.average(HEAD))


@over(BOTH)
@given(seed=seeds, w=weightings)
def test_where_one_factor_is_common_every_rule_of_full_rank_agrees(name, seed, w):
    """RoLoRA's rounds share one factor: there is no product, and the mean is exact."""
    if name.startswith("Server"):
        return
    r = a_round((40, 24), seed, w, shared=(A,))
    close(r.step(RULES[name]), r.ideal)


# --- server optimisers ----------------------------------------------------------------------------

SERVERS = [ServerMomentum, ServerAdam, ServerYogi]


@given(seed=seeds, w=weightings)
@pytest.mark.parametrize("name", ["Mean", "Residual", "FairRidge"])
def test_a_full_step_without_momentum_is_the_inner_rule(name, seed, w):
    r = single(a_round((7, 5), seed, w))
    plain = r.combine(RULES[name])
    stepped = r.combine(ServerOptimizer(inner=RULES[name], step=ServerMomentum(momentum=0.0)))
    assert stepped.factors.digest() == plain.factors.digest()
    assert stepped.residual.keys() == plain.residual.keys()


@pytest.mark.parametrize("kind", SERVERS)
def test_server_optimisers_follow_their_papers(kind):
    """Three rounds by hand: moments live in the memory, nowhere else."""
    rule = ServerOptimizer(inner=Mean(), step=kind(learning_rate=0.5))
    r = a_round((7, 5), 0, [1.0, 2.0])
    x = {k: r.state.factors[k].numpy() for k in (A, B, HEAD)}
    m = {k: np.zeros_like(v) for k, v in x.items()}
    v = {k: np.full_like(t, 1e-6) for k, t in x.items()}
    state = r.state
    for number in range(3):
        r = a_round((7, 5), number, [1.0, 2.0])
        for k in (A, B, HEAD):
            delta = r.average(k) - x[k]
            if kind is ServerMomentum:
                m[k] = 0.9 * m[k] + delta
                x[k] = x[k] + 0.5 * m[k]
                continue
            m[k] = 0.9 * m[k] + 0.1 * delta
            squared = delta**2
            if kind is ServerAdam:
                v[k] = 0.99 * v[k] + 0.01 * squared
            else:
                v[k] = v[k] - 0.01 * squared * np.sign(v[k] - squared)
            x[k] = x[k] + 0.5 * m[k] / (np.sqrt(v[k]) + 1e-3)
        combined = rule.combine(state, r.mean)
        state = GlobalState(
            round=number + 1,
            factors=state.factors.updated(combined.factors),
            memory={**state.memory, **combined.memory},
        )
    for k, t in x.items():
        close(state.factors[k].numpy(), t)


@pytest.mark.parametrize("inner", [Fold(), Truncate(rank=2), Refactor(), BOTH["ServerAdam"]])
def test_moments_in_another_basis_are_refused(inner):
    with pytest.raises(ValueError, match="server optimiser"):
        ServerOptimizer(inner=inner, step=ServerMomentum())


@pytest.mark.parametrize("make", [
    lambda: Residual(rank=0),
    lambda: Truncate(rank=0),
    lambda: Refactor(every=0),
    lambda: FairRidge(ridge=-0.1),
    lambda: FairCosine(strength=-0.1),
    lambda: FairCosine(strength=float("nan")),
    lambda: ServerMomentum(momentum=1.0),
    lambda: ServerAdam(learning_rate=0.0),
    lambda: ServerYogi(tau=0.0),
])  # fmt: skip
def test_impossible_choices_are_refused_in_words(make):
    with pytest.raises(ValueError, match=r"\w+:? must"):
        make()
