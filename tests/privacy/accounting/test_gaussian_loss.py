"""Against dp-accounting, which computes the same point by point."""

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss
from dp_accounting.privacy_accountant import NeighboringRelation
from hypothesis import given
from hypothesis import strategies as st

from silotune.privacy.accounting.charges import TruncatedCharge
from silotune.privacy.accounting.gaussian_loss import Step, gaussian_loss
from silotune.privacy.accounting.pld import loss

RELATIONS = {
    "add-remove": NeighboringRelation.ADD_OR_REMOVE_ONE,
    "replace-one": NeighboringRelation.REPLACE_ONE,
}
sigmas = st.floats(-3, 3).map(lambda exponent: 10**exponent)
rates = st.floats(-6, 0).map(lambda exponent: 10**exponent)


def within_its_ends(mechanism, n=50):
    ends = mechanism.connect_dots_bounds()
    return np.linspace(ends.epsilon_lower, ends.epsilon_upper, n)


@given(sigma=sigmas, rate=rates)
@pytest.mark.parametrize("side", AdjacencyType)
def test_every_point_is_the_library_s(side, sigma, rate):
    mechanism = GaussianPrivacyLoss(sigma, sampling_prob=rate, adjacency_type=side)
    losses = within_its_ends(mechanism)
    expected = mechanism.get_delta_for_epsilon(losses)
    found = Step(sigma, rate, side.name.lower()).deltas(losses)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


@pytest.mark.parametrize("side", AdjacencyType)
def test_beyond_the_ends_it_is_none_or_all(side):
    most, least = Step(1.0, 0.1, side.name.lower()).deltas(np.array([-800.0, 800.0]))
    assert (most, least) == (1.0, 0.0)


@pytest.mark.parametrize("relation", RELATIONS)
@pytest.mark.parametrize("rate", [0.02, 1.0])
def test_what_it_costs_is_what_the_library_says(relation, rate):
    theirs = pld.from_gaussian_mechanism(
        0.8,
        value_discretization_interval=1e-3,
        sampling_prob=rate,
        neighboring_relation=RELATIONS[relation],
    )
    ours = gaussian_loss(0.8, 1e-3, sampling_rate=rate, relation=relation)
    assert_same_price(ours, theirs)


@pytest.mark.parametrize("largest", [12, 20, 100])
def test_a_sample_that_is_cut_costs_what_the_library_says(largest):
    """Often, seldom, never."""
    charge = TruncatedCharge(0.1, 0.9, 1, largest=largest, num_examples=100)
    theirs = pld.from_truncated_subsampled_gaussian_mechanism(
        100,
        0.1,
        largest,
        0.9,
        value_discretization_interval=1e-3,
        neighboring_relation=NeighboringRelation.REPLACE_SPECIAL,
    )
    assert_same_price(loss(charge, "zero-out", 1e-3), theirs)


def assert_same_price(ours, theirs):
    for delta in (1e-6, 1e-3):
        found = ours.self_compose(20).get_epsilon_for_delta(delta)
        expected = theirs.self_compose(20).get_epsilon_for_delta(delta)
        assert found == pytest.approx(expected, rel=1e-8)
