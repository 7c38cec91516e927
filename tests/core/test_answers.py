"""Answers add up to metrics, and say how sure these are."""

import math

import numpy as np
import pytest
import torch

from silotune.core import Answers, joined
from silotune.core.classes import class_scores, macro_f1, macro_f1_error
from silotune.objectives.classification import derived


def texts(n: int, seed: int = 0) -> Answers:
    """Losses of texts of different lengths: longer ones are easier."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(3, 30, (n,), generator=draw)
    losses = tokens * (2 - tokens / 60) + tokens * torch.randn(n, generator=draw)
    return Answers(totals={"loss": losses}, counts=tokens)


def notes(n: int, seed: int = 0) -> Answers:
    draw = torch.Generator().manual_seed(seed)
    right = torch.randint(4, (n,), generator=draw)
    wrong = torch.rand(n, generator=draw) < 0.1 + 0.1 * right
    given = torch.where(wrong, torch.randint(4, (n,), generator=draw), right)
    totals = {"accuracy": (right == given).double()}
    return Answers(
        totals=totals, counts=torch.ones(n), kept={"right": right, "given": given}, derive=derived
    )


def rows(answers: Answers, which) -> Answers:
    return Answers(
        totals={name: total[which] for name, total in answers.totals.items()},
        counts=answers.counts[which],
        kept={name: kept[which] for name, kept in answers.kept.items()},
        derive=answers.derive,
    )


def test_parts_joined_are_the_whole():
    whole = notes(50)
    parts = joined([rows(whole, slice(0, 20)), rows(whole, slice(20, 50))])
    assert parts.meters() == whole.meters()
    assert parts.metrics() == whole.metrics()
    assert joined([]).meters() == {}


def bootstrap(answers: Answers, figure) -> float:
    draw, n = np.random.default_rng(0), len(answers.counts)
    found = [figure(rows(answers, torch.from_numpy(draw.integers(n, size=n)))) for _ in range(400)]
    return float(np.std(found))


def test_the_error_of_a_loss_is_that_of_records_drawn_again():
    """Tokens of one text are not independent: records are drawn, not tokens."""
    answers = texts(300)
    again = bootstrap(answers, lambda drawn: drawn.meters()["loss"].value())
    assert answers.error("loss") == pytest.approx(again, rel=0.15)
    assert math.isnan(texts(1).error("loss"))


def test_the_error_of_macro_f1_is_that_of_records_drawn_again():
    answers = notes(300)
    again = bootstrap(answers, lambda drawn: drawn.metrics()["macro_f1"])
    assert derived(answers).errors["macro_f1"] == pytest.approx(again, rel=0.15)


def test_scores_of_classes_by_hand():
    """Class 0: 2 of 3 found, 1 foreign; class 1: 1 of 2 found, 1 foreign."""
    pairs = [(0, 0, 2), (0, 1, 1), (1, 1, 1), (1, 0, 1)]
    first, second = class_scores(pairs)
    assert (first.label, first.records, first.given, first.hits) == (0, 3, 3, 2)
    assert (first.precision, first.recall, first.f1) == (2 / 3, 2 / 3, 2 / 3)
    assert (second.precision, second.recall, second.f1) == (1 / 2, 1 / 2, 1 / 2)
    assert macro_f1(pairs) == pytest.approx((2 / 3 + 1 / 2) / 2)


def test_a_class_that_is_never_right_counts_as_nothing_found():
    (right, given) = class_scores([(0, 3, 5)])
    assert (right.recall, right.f1) == (0.0, 0.0)
    assert (given.precision, given.f1) == (0.0, 0.0)
    assert math.isnan(right.precision)
    assert math.isnan(given.recall)
    assert macro_f1([(0, 3, 5)]) == 0
    assert math.isnan(macro_f1([]))
    assert math.isnan(macro_f1_error([]))
