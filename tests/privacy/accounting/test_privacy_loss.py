"""Our privacy losses against dp-accounting's own, which it builds and composes point by point."""

import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.pld.common import self_convolve
from dp_accounting.privacy_accountant import NeighboringRelation
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import fftconvolve

from covering import examples
from silotune.privacy.accounting import accountant
from silotune.privacy.accounting.accountant import COARSE, epsilon, epsilons
from silotune.privacy.accounting.charges import Charge, TruncatedCharge
from silotune.privacy.accounting.gaussian_loss import gaussian_loss
from silotune.privacy.accounting.pld import interval
from silotune.privacy.accounting.privacy_loss import Masses, _convolved

RELATIONS = {
    "add-remove": NeighboringRelation.ADD_OR_REMOVE_ONE,
    "zero-out": NeighboringRelation.REPLACE_SPECIAL,
    "replace-one": NeighboringRelation.REPLACE_ONE,
}
relations = st.sampled_from(sorted(RELATIONS))


def powers(least, most):
    """Numbers that are as likely in any factor of ten."""
    return st.floats(least, most).map(lambda exponent: 10.0**exponent)


steps = powers(0, 4).map(round)
rates = st.one_of(powers(-5, -0.3), st.floats(0.5, 1.0), st.just(1.0))
charges = st.builds(Charge, rates, powers(-0.7, 2), steps)


def same(ours, theirs):
    return ours == theirs or abs(ours - theirs) <= 1e-7 * max(1.0, theirs)


def whole(charge, relation, grid=COARSE):
    """A charge by the library alone, from its own deltas on, on the grid that ours is on."""
    step = interval([(charge, 1)], relation, grid)
    one = pld.from_gaussian_mechanism(
        charge.noise_multiplier,
        value_discretization_interval=step,
        sampling_prob=charge.sampling_rate,
        neighboring_relation=RELATIONS[relation],
    )
    return step, one if charge.steps == 1 else one.self_compose(charge.steps)


def ours(charge, relation, step):
    q, sigma = charge.sampling_rate, charge.noise_multiplier
    one = gaussian_loss(sigma, step, sampling_rate=q, relation=relation)
    return one if charge.steps == 1 else one.self_compose(charge.steps)


@examples(15, 60)
@given(charges, relations, powers(-8, -2))
def test_any_charge_costs_what_the_library_alone_says(charge, relation, delta):
    if charge.steps > accountant._RESOLVED * delta:
        delta = charge.steps / accountant._RESOLVED
    step, theirs = whole(charge, relation)
    expected = theirs.get_epsilon_for_delta(delta)
    assert same(ours(charge, relation, step).get_epsilon_for_delta(delta), expected)


def parts(relation):
    small = st.builds(Charge, rates, powers(-0.3, 1), st.integers(1, 300))
    cut = st.builds(
        lambda q, sigma, steps, n: TruncatedCharge(
            q, sigma, steps, largest=max(1, math.ceil(1.5 * q * n)), num_examples=n
        ),
        powers(-2, -0.3),
        powers(-0.3, 1),
        st.integers(1, 300),
        st.integers(20, 500),
    )
    kinds = [small, cut] if relation == "zero-out" else [small]
    return st.tuples(st.just(relation), st.lists(st.one_of(kinds), min_size=1, max_size=3))


@examples(10, 60)
@given(relations.flatmap(parts), powers(-7, -2))
def test_different_charges_together_cost_what_the_library_says(drawn, delta):
    relation, charged = drawn
    found, expected = (
        epsilon(charged, delta, relation=relation, grid=COARSE, library=library)
        for library in (False, True)
    )
    assert same(found, expected)


@pytest.mark.parametrize(
    ("charge", "relation"),
    [
        (Charge(1e-6, 0.6, 100_000), "add-remove"),
        (Charge(1e-6, 500.0, 1), "replace-one"),
        (Charge(0.999999, 0.2, 3), "add-remove"),
        (Charge(0.3, 0.1, 2), "replace-one"),
        (Charge(0.5, 1e4, 100_000), "add-remove"),
    ],
)
def test_extremes_cost_what_the_library_alone_says(charge, relation):
    step, theirs = whole(charge, relation)
    for delta in (1e-4, 0.5):
        expected = theirs.get_epsilon_for_delta(delta)
        assert same(ours(charge, relation, step).get_epsilon_for_delta(delta), expected)


@pytest.mark.parametrize(("delta", "steps"), [(1e-10, 10), (1e-5, 30_000)])
def test_what_rounding_could_decide_the_library_counts(delta, steps, monkeypatch):
    """Figures are the library's own to the last digit, where two roundings may differ."""
    accountant._epsilons.cache_clear()
    monkeypatch.setattr(Masses, "self_compose", None)
    charge = Charge(0.01, 1.0, steps)
    own = epsilon([charge], delta, grid=COARSE)
    assert own == epsilon([charge], delta, grid=COARSE, library=True)


def test_a_composition_is_that_of_numpy():
    chances = np.array([0.5, 0.3, 0.15])
    one = Masses(1.0, -1, chances, 0.05)
    for times in (1, 2, 7):
        low, expected = self_convolve(chances, times, 1e-15)
        found = one.self_compose(times)
        assert found.lowest == low - times
        np.testing.assert_allclose(found.chances, expected, rtol=0, atol=1e-15)
        assert found.infinite == pytest.approx(1 - 0.95**times + 1e-15, rel=1e-12)
    both = one.compose(one)
    np.testing.assert_allclose(both.chances, np.convolve(chances, chances), rtol=0, atol=1e-15)
    assert (both.lowest, both.infinite) == (-2, pytest.approx(1 - 0.95**2))


@pytest.mark.parametrize(("n", "m"), [(2, 2), (2, 7), (200, 331), (4097, 513)])
def test_two_losses_together_are_those_of_scipy_to_the_bit(n, m):
    draw = np.random.default_rng(n)
    one, other = draw.random(n), draw.random(m)
    assert np.array_equal(_convolved(one, other), fftconvolve(one, other))


def test_a_loss_of_hundreds_and_one_that_is_nearly_certain():
    huge = Masses(1.0, 800, np.array([0.5, 0.4]), 0.1)  # exp(-800) is no float
    assert huge.get_epsilon_for_delta(0.2) == 801.0
    assert huge.get_epsilon_for_delta(0.05) == math.inf
    assert huge.get_epsilon_for_delta(0.99) == 800.0
    nothing = Masses(1.0, -3, np.array([0.5, 0.5]), 0.0)
    assert nothing.get_epsilon_for_delta(0.1) == 0.0


@pytest.mark.parametrize("deltas", [[0.1, 0.2], [1.1, 0.5], [0.5, -0.1], [math.nan, 0.1]])
def test_deltas_of_no_mechanism_are_refused(deltas):
    with pytest.raises(ArithmeticError, match="deltas"):
        Masses.connecting(0.1, 0, np.array(deltas))


def test_several_deltas_of_one_composition():
    charged = [Charge(0.1, 2.0, 30), Charge(1.0, 9.0, 4, 2**20)]
    deltas = (1e-6, 0.01, 0.3)
    apart = [epsilon(charged, delta, grid=COARSE) for delta in deltas]
    assert list(epsilons(charged, deltas, grid=COARSE)) == apart
    with pytest.raises(ValueError, match="target_delta"):
        epsilons(charged, (0.1, 0.0))
