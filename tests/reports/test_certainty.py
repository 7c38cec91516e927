"""Intervals of scores: the known formulas, and nothing where nothing is known."""

import math
from dataclasses import replace

import pytest

from reports.clinics import scored
from silotune.reports.certainty import intervals, score_text, wilson


@pytest.mark.parametrize(
    ("right", "n", "low", "high"),
    [
        (9, 10, 0.5958, 0.9821),
        (10, 10, 0.7225, 1.0),
        (0, 4, 0.0, 0.4899),
        (81, 263, 0.2553, 0.3662),
    ],
)
def test_wilsons_interval(right, n, low, high):
    """The last from Newcombe, Statistics in Medicine 17 (1998), table I."""
    assert wilson(right / n, n) == pytest.approx((low, high), abs=6e-5)


def test_no_records_no_interval():
    assert all(map(math.isnan, wilson(math.nan, 5)))
    assert all(map(math.isnan, wilson(0.5, 0)))
    assert intervals(replace(scored(), records=0, errors={})) == {}


def test_perplexity_is_the_exponential_of_the_loss():
    about = replace(scored(), metrics={"loss": 2.0, "perplexity": math.e**2}, errors={"loss": 0.1})
    found = intervals(about)
    assert found["loss"] == pytest.approx((2 - 0.196, 2 + 0.196), abs=1e-4)
    assert found["perplexity"] == pytest.approx(tuple(map(math.exp, found["loss"])))


def test_a_cross_entropy_is_not_below_nothing():
    about = replace(scored(), metrics={"loss": 0.2, "perplexity": 1.2}, errors={"loss": 0.3})
    found = intervals(about)
    assert (found["loss"][0], found["perplexity"][0]) == (0.0, 1.0)


def test_a_score_in_words():
    assert score_text(scored()) == (
        "accuracy 85.0 % (79.4 % to 89.3 %), loss 0.400 (0.302 to 0.498), "
        "macro_f1 0.850 (0.809 to 0.891); n = 200"
    )
