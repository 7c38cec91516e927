"""The privacy loss, drawn by its definition, against the accountant."""

import pytest

from silotune.audit.checks import failed
from silotune.audit.composition import DELTA, composition_checks, moved
from silotune.privacy import Charge, CorrelatedCharge
from silotune.privacy.accounting.accountant import epsilon
from silotune.privacy.mechanisms.matrix_factorization import sensitivity

pytestmark = pytest.mark.usefixtures("same_secrets")

CHARGES = [
    Charge(1.0, 2.0, 1),
    pytest.param(Charge(0.1, 1.0, 30), marks=pytest.mark.full),
    pytest.param(Charge(0.02, 0.8, 200), marks=pytest.mark.full),
    pytest.param(CorrelatedCharge(4.0, 24, 3, 6), marks=pytest.mark.full),
    CorrelatedCharge(4.0, 20, 8, 4),
]


@pytest.mark.parametrize("charge", CHARGES)
def test_the_accountants_price_is_enough_and_hardly_more(charge):
    claim = epsilon([charge], DELTA)
    assert not failed(composition_checks(charge, claim))
    assert failed(composition_checks(charge, 0.85 * claim))


def test_a_sum_that_forgets_steps_is_found():
    claim = epsilon([Charge(0.1, 1.0, 20)], DELTA)
    assert failed(composition_checks(Charge(0.1, 1.0, 30), claim))


@pytest.mark.parametrize(("bands", "turns", "steps"), [(3, 6, 24), (8, 4, 20), (1, 3, 10)])
def test_a_record_moves_as_much_as_the_sensitivity_says(bands, turns, steps):
    charge = CorrelatedCharge(1.0, steps, bands, turns)
    assert moved(charge) == pytest.approx(sensitivity(bands, turns, steps))
