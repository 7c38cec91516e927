"""What is called no dearer costs no more, by the accountant too; and whatever might, is not."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covering import examples
from silotune.privacy.accounting.accountant import COARSE, epsilon
from silotune.privacy.accounting.charges import Charge, CorrelatedCharge, TruncatedCharge
from silotune.privacy.accounting.dominance import dearer, dominated

ONE = Charge(0.2, 1.5, 30, 2**20)
COUNT = Charge(1.0, 20.0, 1)
shares = st.floats(0.01, 1.0)


@examples(8, 40)
@given(
    st.floats(0.01, 1.0),
    st.floats(0.7, 4.0),
    st.integers(1, 60),
    shares,
    st.sampled_from(["add-remove", "zero-out", "replace-one"]),
    st.booleans(),
)
def test_a_lower_rate_and_fewer_steps_cost_no_more(q, sigma, steps, share, relation, besides):
    """On one grid even of the same intervals: the order is one of the delta curves."""
    high = Charge(q, sigma, steps)
    low = replace(high, sampling_rate=share * q, steps=max(1, round(share * steps)))
    others = [COUNT] if besides and relation != "replace-one" else []
    assert dominated([low, *others], [high, *others])
    costs = [
        epsilon([charge, *others], 1e-5, relation=relation, grid=COARSE) for charge in (low, high)
    ]
    assert costs[0] <= costs[1] * (1 + 1e-7) + 1e-9


@pytest.mark.parametrize("sides", [((0.0, -1.0), (0.0,)), ((0.0,), (0.0, 1.0))])
@pytest.mark.parametrize(("q", "higher"), [(0.01, 0.3), (0.3, 1.0), (0.1999, 0.2)])
def test_the_kernel_of_the_proof_maps_one_pair_to_the_other(sides, q, higher):
    """Keep with probability q / q', else draw afresh: densities on a line, both data sets."""
    x = np.linspace(-8, 8, 801)

    def gaussian(mean):
        return np.exp(-((x - mean) ** 2) / 2)

    def mixed(means, rate):
        other = gaussian(means[-1])
        return (1 - rate) * gaussian(0.0) + rate * other

    for means in sides:
        kept = q / higher * mixed(means, higher) + (1 - q / higher) * gaussian(0.0)
        np.testing.assert_allclose(kept, mixed(means, q), rtol=1e-12)


@pytest.mark.parametrize(
    "charges",
    [
        [replace(ONE, steps=31)],
        [replace(ONE, steps=30), replace(ONE, steps=1)],
        [replace(ONE, steps=20), replace(ONE, sampling_rate=0.1, steps=11)],
        [replace(ONE, sampling_rate=0.2000001)],
        [replace(ONE, noise_multiplier=1.4999999)],
        [replace(ONE, noise_multiplier=1.6)],
        [replace(ONE, grid_points=0)],
        [ONE, COUNT, COUNT],
        [TruncatedCharge(0.1, 1.5, 1, 20, 60, 2**20)],
        [CorrelatedCharge(1.5, 1, 2, 3)],
    ],
)
def test_what_is_not_proved_is_not_covered(charges):
    assert not dominated(charges, [ONE, COUNT])
    assert not dominated(charges, [])


def test_what_is_covered():
    assert dominated([], [])
    assert dominated([replace(ONE, steps=0)], [])
    assert dominated([replace(ONE, steps=19), replace(ONE, sampling_rate=0.1, steps=11)], [ONE])
    assert dominated([COUNT, replace(ONE, steps=7)], [ONE, COUNT])
    cut = TruncatedCharge(0.1, 1.5, 5, 20, 60)
    assert dominated([replace(cut, steps=4)], [cut])
    assert not dominated([replace(cut, sampling_rate=0.09)], [cut])
    assert not dominated([replace(cut, num_examples=61)], [cut])


@given(q=st.floats(1e-3, 1.0), sigma=st.floats(0.6, 20.0), steps=st.integers(1, 300))
@examples(6, 60)
def test_a_dearer_charge_costs_no_less_and_hardly_more(q, sigma, steps):
    charge = Charge(q, sigma, steps, grid_points=2**20)
    more = dearer(charge)
    assert more.sampling_rate >= q
    assert more.noise_multiplier <= sigma
    assert more.steps >= steps
    one, other = (epsilon([c], 1e-5, grid=COARSE) for c in (charge, more))
    assert one <= other * (1 + 1e-9)
    assert other <= 1.3 * one + 0.01


def test_there_are_few_kinds_of_dearer_charges():
    rates = np.geomspace(1e-3, 0.3, 2000)
    silos = [Charge(float(q), 0.6 + 3 * float(q), 1 + i % 40) for i, q in enumerate(rates)]
    assert len({replace(dearer(c), steps=1) for c in silos}) < 200
    for charge in (TruncatedCharge(0.1, 1.0, 3, 20, 100), CorrelatedCharge(1.0, 3, 2, 5)):
        assert dearer(charge) == charge
    assert dearer(Charge(0.1, 0.0, 3)) == Charge(0.1, 0.0, 3)
