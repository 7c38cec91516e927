"""Charges: what may be one, what belongs together, and how they are written down."""

import json
import math

import pytest

from silotune.privacy.accounting.charges import (
    Charge,
    CorrelatedCharge,
    TruncatedCharge,
    from_json,
    merged,
    to_json,
)

KINDS = [
    Charge(0.25, 2.0, 10),
    Charge(1.0, 0.0, 0, 2**20),
    TruncatedCharge(0.25, 2.0, 10, 40, 100),
    TruncatedCharge(0.25, 2.0, 10, 40, 100, 2**20),
    CorrelatedCharge(2.0, 10, 3, 4),
]


@pytest.mark.parametrize("charge", KINDS)
def test_what_is_written_can_be_read(charge):
    assert from_json(json.loads(json.dumps(to_json(charge)))) == charge


def test_the_kind_and_all_fields_are_written():
    assert to_json(KINDS[0]) == {
        "kind": "poisson",
        "sampling_rate": 0.25,
        "noise_multiplier": 2.0,
        "steps": 10,
        "grid_points": 0,
    }
    assert to_json(KINDS[2])["kind"] == "truncated-poisson"
    assert to_json(KINDS[4])["kind"] == "correlated"


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (None, "kind"),
        ([], "kind"),
        ({}, "kind"),
        ({"kind": []}, "kind"),
        ({**to_json(KINDS[0]), "steps": 10**400}, "steps"),
        ({**to_json(KINDS[0]), "noise_multiplier": 10**400}, "noise_multiplier"),
        ({"kind": "shuffled"}, "poisson, truncated-poisson, correlated"),
        ({**to_json(KINDS[0]), "extra": 1}, "extra"),
        ({**to_json(KINDS[0]), "steps": "10"}, "steps"),
        ({**to_json(KINDS[0]), "steps": True}, "steps"),
        ({**to_json(KINDS[0]), "steps": 1.0}, "steps"),
        ({**to_json(KINDS[0]), "grid_points": True}, "grid_points"),
        ({**to_json(KINDS[0]), "steps": -1}, "steps"),
        ({**to_json(KINDS[0]), "noise_multiplier": math.nan}, "noise_multiplier"),
        ({"kind": "poisson", "sampling_rate": 0.1, "noise_multiplier": 1.0}, "steps"),
        ({**to_json(KINDS[0]), "kind": "correlated"}, "sampling_rate"),
    ],
)
def test_what_is_no_charge_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        from_json(wrong)


def test_charges_that_differ_in_steps_only_are_one():
    parts = [Charge(0.1, 2.0, 3), *KINDS, Charge(0.1, 2.0, 4), CorrelatedCharge(2.0, 5, 3, 4)]
    assert set(merged(parts)) == {
        Charge(0.1, 2.0, 7),
        Charge(0.25, 2.0, 10),
        TruncatedCharge(0.25, 2.0, 10, 40, 100),
        TruncatedCharge(0.25, 2.0, 10, 40, 100, 2**20),
        CorrelatedCharge(2.0, 15, 3, 4),
    }
    assert merged(parts) == merged(parts[::-1])


def test_discrete_noise_is_another_mechanism():
    assert len(merged([Charge(0.1, 2.0, 3), Charge(0.1, 2.0, 3, 2**20)])) == 2


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (lambda: Charge(0.0, 1.0, 1), "batch_size"),
        (lambda: Charge(1.5, 1.0, 1), "batch_size"),
        (lambda: Charge(math.nan, 1.0, 1), "batch_size"),
        (lambda: Charge(0.5, -1.0, 1), "noise_multiplier"),
        (lambda: Charge(0.5, math.inf, 1), "noise_multiplier"),
        (lambda: Charge(0.5, 1.0, -1), "steps"),
        (lambda: TruncatedCharge(0.0, 1.0, 1, 10, 100), "batch_size"),
        (lambda: TruncatedCharge(0.1, math.nan, 1, 10, 100), "noise_multiplier"),
        (lambda: TruncatedCharge(0.1, 1.0, -1, 10, 100), "steps"),
        (lambda: TruncatedCharge(0.1, 1.0, 1, 0, 100), "max_batch_size"),
        (lambda: TruncatedCharge(0.1, 1.0, 1, 10, 0), "num_examples"),
        (lambda: CorrelatedCharge(-1.0, 1, 1, 1), "noise_multiplier"),
        (lambda: CorrelatedCharge(1.0, -1, 1, 1), "steps"),
        (lambda: CorrelatedCharge(1.0, 1, 0, 1), "bands"),
        (lambda: CorrelatedCharge(1.0, 1, 1, 0), "separation"),
    ],
)
def test_errors_name_the_key(call, key):
    with pytest.raises(ValueError, match=key):
        call()
