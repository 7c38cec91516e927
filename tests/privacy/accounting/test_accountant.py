"""Epsilon against published tables, closed forms and another accountant."""

import math
from dataclasses import replace

import dp_accounting as dp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from covering import examples, full
from silotune.privacy.accounting.accountant import (
    COARSE,
    FINE,
    epsilon,
    epsilon_by_round,
    epsilon_over_silos,
    epsilon_rdp,
)
from silotune.privacy.accounting.calibration import calibrate
from silotune.privacy.accounting.charges import Charge, CorrelatedCharge, TruncatedCharge

DELTA = 1e-5

# q = 0.01: (steps, epsilon, sigma at grid 1e-3, sigma at grid 1e-4)
PUBLISHED = [
    (1000, 1, 1.4158, 1.4146),
    (1000, 3, 0.8136, 0.8136),
    (1000, 6, 0.6425, 0.6425),
    (3000, 1, 2.1954, 2.1888),
    (3000, 3, 1.0333, 1.0330),
    (3000, 6, 0.7596, 0.7596),
    (10000, 1, 3.8559, 3.8132),
    (10000, 3, 1.5671, 1.5651),
    (10000, 6, 1.0167, 1.0164),
]

# FFA-LoRA on GLUE, three equal shards of 200 / q records, 10,000 steps:
# (200 / q, [(epsilon, published sigma at grid 1e-3, our own at grid 1e-4 where it differs)])
PAPER = [
    (130_900, [(6, 0.522, 0.522), (3, 0.622, 0.622), (1, 0.876, 0.8718)]),
    (22_449, [(6, 0.949, 0.949), (3, 1.430, 1.430), (1, 3.452, 3.4140)]),
    (121_282, [(6, 0.530, 0.530), (3, 0.632, 0.632), (1, 0.911, 0.9055)]),
    (34_914, [(6, 0.762, 0.762), (3, 1.048, 1.048), (1, 2.288, 2.2646)]),
]
PAPER_ROWS = [(n, *row) for n, rows in PAPER for row in rows]

# published with two or three digits: (q, steps, delta, sigmas of epsilon 1, 3 and 6)
PRINTED = [
    (0.2, 1000, 1e-5, ("23.7", "8.86", "4.91")),
    (0.04, 1000, 1e-5, ("4.83", "1.94", "1.21")),
    (0.01, 1000, 1e-5, ("1.42", "0.815", "0.643")),
    (0.064, 500, 1e-5, ("5.46", "2.17", "1.33")),
    # clients: delta = N^-1.1
    (0.05, 100, 1000**-1.1, ("1.64", "0.90", "0.68")),
    (0.01, 200, 10_000**-1.1, ("0.91", "0.65", "0.52")),
    (1.0, 50, 100**-1.1, ("14.3", "6.2", "3.7")),
    (1.0, 50, 10**-1.1, ("8.3", "4.3", "2.8")),
]
PRINTED_ROWS = [
    (q, steps, delta, target, sigma)
    for q, steps, delta, sigmas in PRINTED
    for target, sigma in zip((1, 3, 6), sigmas, strict=True)
]

mechanisms = st.builds(
    Charge,
    sampling_rate=st.floats(0.05, 1.0),
    noise_multiplier=st.floats(1.5, 8.0),
    steps=st.integers(1, 200),
)


def poisson(q, steps):
    """The price of a sigma."""
    return lambda sigma: Charge(q, sigma, steps)


def assert_sigma(sigma, target, q, steps, tolerance, grid, delta=DELTA):
    """The sigma that costs ``target`` lies within ``tolerance`` of ``sigma``."""

    def cost(s):
        return epsilon([Charge(q, s, steps)], delta, grid=grid)

    assert cost(sigma * (1 + tolerance)) < target < cost(sigma * (1 - tolerance))


@pytest.mark.parametrize(
    ("steps", "target", "coarse", "fine"),
    [row if i % 4 == 0 else full(*row) for i, row in enumerate(PUBLISHED)],
)
def test_published_sigma_on_the_coarse_grid(steps, target, coarse, fine):
    assert_sigma(coarse, target, 0.01, steps, 0.002, COARSE)


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "target", "coarse", "fine"), PUBLISHED)
def test_published_sigma_on_the_fine_grid(steps, target, coarse, fine):
    assert_sigma(fine, target, 0.01, steps, 0.002, FINE)


@pytest.mark.slow
@pytest.mark.parametrize(("records", "target", "coarse", "fine"), PAPER_ROWS)
def test_sigma_of_the_papers_setting(records, target, coarse, fine):
    assert_sigma(coarse, target, 200 / records, 10_000, 0.002, COARSE)
    assert_sigma(fine, target, 200 / records, 10_000, 0.002, FINE)


@pytest.mark.slow
@pytest.mark.parametrize(("q", "steps", "delta", "target", "printed"), PRINTED_ROWS)
def test_sigma_with_few_digits(q, steps, delta, target, printed):
    half_a_digit = 0.5 * 10.0 ** -len(printed.partition(".")[2]) / float(printed)
    assert_sigma(float(printed), target, q, steps, 0.002 + half_a_digit, COARSE, delta)


@pytest.mark.parametrize(("sigma", "steps"), [(1.0, 1), (4.0, 50), (20.0, 3)])
@pytest.mark.parametrize("delta", [1e-5, 1e-9])
def test_full_batches_are_plain_gaussians(sigma, steps, delta):
    exact = dp.get_epsilon_gaussian(sigma / math.sqrt(steps), delta)
    upper = epsilon([Charge(1.0, sigma, steps)], delta)
    assert exact <= upper <= exact + 1e-8


@pytest.mark.parametrize(
    ("target", "q", "steps"), [full(6, 0.1, 200), (0.5, 0.2, 30), (2, 1.0, 10)]
)
def test_calibrate_inverts_epsilon(target, q, steps):
    sigma = calibrate(target, DELTA, poisson(q, steps))
    assert 0.997 * target <= epsilon([Charge(q, sigma, steps)], DELTA) <= target
    assert epsilon([Charge(q, sigma * 0.995, steps)], DELTA) > target


def test_calibrate_leaves_the_coarse_grid_where_it_wastes_noise():
    coarse = 0.1 * (1 - 1e-6)
    sigma = calibrate(0.1, DELTA, poisson(0.5, 100))
    assert epsilon([Charge(0.5, sigma, 100)], DELTA, grid=COARSE) > coarse
    assert 0.0995 <= epsilon([Charge(0.5, sigma, 100)], DELTA) <= 0.1


@examples(1, 3)
@given(st.floats(0.3, 2.0), st.floats(0.02, 0.5), st.integers(10, 100))
def test_calibrated_sigma_is_certified_and_monotone(target, q, steps):
    sigma = calibrate(target, DELTA, poisson(q, steps))
    assert epsilon([Charge(q, sigma, steps)], DELTA) <= target
    easier = calibrate(target * 1.1, DELTA, poisson(q, steps))
    harder = calibrate(target, DELTA, poisson(q, 2 * steps))
    assert easier < sigma < harder


@examples(3, 6)
@given(mechanisms)
def test_epsilon_is_monotone(charge):
    q, sigma, steps = charge.sampling_rate, charge.noise_multiplier, charge.steps

    def cost(q=q, sigma=sigma, steps=steps, delta=DELTA):
        return epsilon([Charge(q, sigma, steps)], delta, grid=COARSE)

    assert cost(steps=steps + 10) >= cost()
    assert cost(sigma=sigma * 1.1) <= cost()
    assert cost(q=q * 0.9) <= cost()
    assert cost(delta=DELTA * 10) <= cost()
    assert cost() >= epsilon([charge], DELTA, grid=COARSE / 2) >= 0.0  # a finer grid is tighter


def test_another_accountant_agrees():
    charges = [Charge(0.1, 2.0, 30), Charge(0.2, 3.0, 10), Charge(1.0, 9.0, 4)]
    theirs = dp.pld.PLDAccountant(value_discretization_interval=COARSE)
    for c in charges:
        step = dp.PoissonSampledDpEvent(c.sampling_rate, dp.GaussianDpEvent(c.noise_multiplier))
        theirs.compose(dp.SelfComposedDpEvent(step, c.steps))
    # what is not sampled they put on the grid step by step, we as a whole
    assert epsilon(charges, DELTA, grid=COARSE) == pytest.approx(
        theirs.get_epsilon(DELTA), rel=1e-4
    )


def test_order_and_pieces_do_not_matter():
    parts = [Charge(0.1, 2.0, 10), Charge(0.3, 5.0, 7), Charge(0.1, 2.0, 20), Charge(0.2, 3.0, 0)]
    whole = [Charge(0.3, 5.0, 7), Charge(0.1, 2.0, 30)]
    assert epsilon(parts, DELTA) == epsilon(parts[::-1], DELTA) == epsilon(whole, DELTA)


def test_nothing_done_costs_nothing_and_no_noise_costs_everything():
    assert epsilon([], DELTA) == 0.0
    assert epsilon([Charge(0.5, 1.0, 0), Charge(0.5, 0.0, 0)], DELTA) == 0.0
    assert epsilon([Charge(0.5, 10.0, 5), Charge(0.5, 0.0, 1)], DELTA) == math.inf
    assert epsilon([Charge(0.5, 1e-200, 1)], DELTA) == math.inf


def test_hardly_any_noise_is_answered_in_reasonable_time_and_memory():
    exact = dp.get_epsilon_gaussian(0.05 / math.sqrt(100), DELTA)
    assert epsilon([Charge(1.0, 0.05, 100)], DELTA) == pytest.approx(exact, rel=1e-4)
    assert 5000 < epsilon([Charge(0.9, 0.5, 10_000)], DELTA) < 20_000


EACH = [
    (Charge(0.1, 2.0, 5), "add-remove"),
    (Charge(0.1, 2.0, 5), "replace-one"),
    (Charge(1.0, 20.0, 5), "replace-one"),
    (Charge(0.1, 2.0, 5, 2**20), "zero-out"),
    (Charge(0.1, 2.0, 5, 2**20), "replace-one"),
    (TruncatedCharge(0.1, 2.0, 5, 20, 60, 2**20), "zero-out"),
    (TruncatedCharge(0.1, 2.0, 5, 20, 60), "zero-out"),
    (CorrelatedCharge(8.0, 5, 3, 4), "add-remove"),
]


@pytest.mark.parametrize(("charge", "relation"), EACH)
def test_epsilon_by_round_is_epsilon_of_each_prefix(charge, relation):
    rounds = epsilon_by_round(charge, 6, DELTA, relation=relation)
    apart = [epsilon([charge] * (r + 1), DELTA, relation=relation, grid=COARSE) for r in range(6)]
    assert rounds == pytest.approx(apart, rel=1e-6)
    assert rounds == sorted(rounds)


def test_rounds_without_noise_or_steps():
    assert epsilon_by_round(Charge(0.1, 0.0, 5), 2, DELTA) == [math.inf, math.inf]
    assert epsilon_by_round(Charge(0.1, 2.0, 0), 2, DELTA) == [0.0, 0.0]
    assert epsilon_by_round(Charge(0.1, 2.0, 5), 0, DELTA) == []


@pytest.mark.parametrize(("charge", "relation"), EACH)
def test_every_kind_is_priced_monotonically(charge, relation):
    def cost(delta=DELTA, **changes):
        return epsilon([replace(charge, **changes)], delta, relation=relation, grid=COARSE)

    assert cost(steps=50) > cost() > 0.0
    assert cost(noise_multiplier=charge.noise_multiplier * 1.1) < cost()
    assert cost(delta=DELTA * 10) < cost()


@pytest.mark.slow
@pytest.mark.parametrize(("charge", "relation"), EACH)
def test_every_kind_can_be_calibrated(charge, relation):
    def price(sigma):
        return replace(charge, noise_multiplier=sigma)

    sigma = calibrate(3.0, DELTA, price, relation=relation)
    assert 2.99 <= epsilon([price(sigma)], DELTA, relation=relation) <= 3.0


@pytest.mark.parametrize(("charge", "relation"), EACH)
def test_silos_compose_to_at_least_the_worst_and_at_most_the_sum(charge, relation):
    silos = [[charge], [charge, charge]]
    apart = [epsilon(charges, DELTA, relation=relation, grid=COARSE) for charges in silos]
    both = epsilon_over_silos(silos, 2 * DELTA, relation=relation, grid=COARSE)
    assert max(apart) * 0.9 < both <= sum(apart)
    assert epsilon_over_silos(silos[:1], DELTA, relation=relation, grid=COARSE) == apart[0]


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (lambda: epsilon([], 0.0), "target_delta"),
        (lambda: epsilon([], 1.0), "target_delta"),
        (lambda: epsilon_rdp([], 0.0), "target_delta"),
        (lambda: calibrate(0.0, DELTA, poisson(0.1, 10)), "target_epsilon"),
        (lambda: calibrate(math.inf, DELTA, poisson(0.1, 10)), "target_epsilon"),
        (lambda: calibrate(1.0, 0.0, poisson(0.1, 10)), "target_delta"),
        (lambda: calibrate(1.0, DELTA, poisson(2.0, 10)), "batch_size"),
        (lambda: calibrate(1e-5, DELTA, poisson(1.0, 10_000)), "target_epsilon.*raise it"),
        (lambda: epsilon_by_round(Charge(0.1, 1.0, 1), -1, DELTA), "rounds"),
    ],
)
def test_errors_name_the_key(call, key):
    with pytest.raises(ValueError, match=key):
        call()
