"""Exact tests: as unlikely as they say where nothing is wrong, and small where something is."""

import numpy as np
import pytest
from scipy.stats import kstest

from silotune.audit.checks import (
    FALSE_ALARM,
    PARTS,
    Check,
    centre,
    failed,
    form,
    likeness,
    share,
    shared_coins,
    shifted_likeness,
    spread,
    tails,
)

TIMES = 1500


def normal(n: int, trial: int) -> np.ndarray:
    return np.random.default_rng([trial, n]).standard_normal(n)


CONTINUOUS = {
    "spread": lambda i: spread(normal(7, i)),
    "centre": lambda i: centre(normal(7, i)),
    "form": lambda i: form(normal(30, i)),
    "likeness": lambda i: likeness(
        [normal(3, i), normal(5, i)], [normal(3, -1 - i + TIMES * 2), normal(5, 9 * TIMES + i)]
    ),
}


@pytest.mark.parametrize("name", CONTINUOUS)
def test_chances_are_uniform_where_nothing_is_wrong(name):
    chances = [CONTINUOUS[name](i) for i in range(TIMES)]
    assert kstest(chances, "uniform").pvalue > 1e-4


def coins(i: int) -> float:
    g = np.random.default_rng(i)
    return shared_coins(g.random(40) < 0.5, g.random(40) < 0.3, 0.3)


CAREFUL = {
    "tails": lambda i: tails(normal(2000, i)),
    "coins": coins,
    "shifts": lambda i: float(shifted_likeness(normal(8, i)[None], normal(6, i + TIMES)[None])),
}


@pytest.mark.parametrize("name", CAREFUL)
@pytest.mark.parametrize("level", [0.02, 0.2])
def test_chances_are_never_too_small(name, level):
    below = sum(CAREFUL[name](i) < level for i in range(TIMES))
    assert below <= level * TIMES + 5 * (level * TIMES) ** 0.5


def test_what_is_wrong_has_no_chance():
    x = normal(300, 1)
    assert spread(0.5 * x) < 1e-12
    assert spread(2.0 * x) < 1e-12
    assert centre(x + 0.5) < 1e-12
    assert form(np.sign(x)) < 1e-12
    assert tails(np.r_[x, [5.0] * 20]) < 1e-12
    assert likeness([x], [-x]) < 1e-12
    moved = np.r_[normal(17, 3), x][:300]
    assert float(shifted_likeness(x[None], moved[None])) < 1e-12
    half = normal(64, 2) < 0
    assert shared_coins(half, half, 0.5) < 1e-8


def test_many_vectors_are_compared_at_once():
    given = normal(50, 1)[None]
    fresh = np.stack([normal(50, 2), given[0]])[:, None]
    chances = shifted_likeness(given, fresh)
    assert chances.shape == (2,)
    assert chances[0] > 1e-3 > 1e-9 > chances[1]


def test_a_group_shares_one_false_alarm():
    fine = [Check("fine", 1e-6)] * 99
    assert failed(fine) == []
    assert failed([*fine, Check("bad", 1e-10), Check("worse", 0.0)])[0].what == "worse"
    assert share(100) == pytest.approx(FALSE_ALARM / PARTS / 100)
