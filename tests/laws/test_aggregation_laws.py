"""What every aggregation rule must obey, and what the mean is known to break."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from silotune.aggregation import Mean, aggregation_error
from silotune.core import Factors, GlobalState, Key, Role, lift

OUT, IN, RANK = 7, 5, 2
RULES = [Mean()]

seeds = st.integers(0, 10_000)
weightings = st.lists(st.floats(0.1, 9.0), min_size=1, max_size=5)


def updates(seed: int, clients: int, common: Role | None = None) -> list[Factors]:
    g = torch.Generator().manual_seed(seed)
    a0, b0 = torch.randn(RANK, IN, generator=g), torch.randn(OUT, RANK, generator=g)
    return [
        Factors(
            {
                Key("q", Role.A): a0 if common is Role.A else torch.randn(RANK, IN, generator=g),
                Key("q", Role.B): b0 if common is Role.B else torch.randn(OUT, RANK, generator=g),
            }
        )
        for _ in range(clients)
    ]


def pooled(us: list[Factors], w: list[float]):
    total = lift(us[0], w[0])
    for u, c in zip(us[1:], w[1:], strict=True):
        total = total + lift(u, c)
    return total.mean()


def combine(rule, us: list[Factors], w: list[float]) -> Factors:
    return rule.combine(GlobalState(round=0, factors=us[0]), pooled(us, w))


def ideal(us: list[Factors], w: list[float]) -> torch.Tensor:
    parts = [c * (u[Key("q", Role.B)] @ u[Key("q", Role.A)]) for u, c in zip(us, w, strict=True)]
    return torch.stack(parts).sum(0) / sum(w)


@given(seed=seeds, w=weightings)
@pytest.mark.parametrize("common", [Role.A, Role.B])
def test_the_mean_is_exact_where_one_factor_is_common(common, seed, w):
    us = updates(seed, len(w), common)
    out = combine(Mean(), us, w)
    torch.testing.assert_close(out.pair("q").dense(), ideal(us, w))
    assert aggregation_error(pooled(us, w), out) < 1e-7


@given(seed=seeds, w=weightings)
def test_the_error_is_the_distance_from_the_ideal(seed, w):
    us = updates(seed, len(w))
    out = combine(Mean(), us, w)
    truth = ideal(us, w)
    distance = torch.linalg.norm(out.pair("q").dense() - truth) / torch.linalg.norm(truth)
    assert aggregation_error(pooled(us, w), out) == pytest.approx(distance.item(), abs=1e-7)


def test_two_clients_that_differ_have_an_error():
    us = updates(0, 2)
    assert aggregation_error(pooled(us, [1.0, 1.0]), combine(Mean(), us, [1.0, 1.0])) > 0.1


@given(seed=seeds)
@pytest.mark.parametrize("rule", RULES, ids=lambda r: type(r).__name__)
def test_one_client_is_copied_bit_for_bit(rule, seed):
    us = [u.map(lambda t: t.float()) for u in updates(seed, 1)]
    out = combine(rule, us, [3.7])
    assert all(torch.equal(out[k], t) for k, t in us[0].items())


@given(seed=seeds, w=weightings, c=st.floats(0.5, 5.0))
@pytest.mark.parametrize("rule", RULES, ids=lambda r: type(r).__name__)
def test_order_of_clients_and_unit_of_weights_are_irrelevant(rule, seed, w, c):
    us = updates(seed, len(w))
    one = combine(rule, us, w)
    two = combine(rule, us[::-1], [c * x for x in w[::-1]])
    for key, tensor in one.items():
        torch.testing.assert_close(two[key], tensor)


@given(seed=seeds)
def test_a_sum_of_many_products_turns_dense_and_stays_exact(seed):
    us = updates(seed, 6)  # stacked rank 12 is more than 5
    product = pooled(us, [1.0] * 6).product["q"]
    assert isinstance(product, torch.Tensor)
    torch.testing.assert_close(product, ideal(us, [1.0] * 6))
