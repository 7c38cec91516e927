"""Numbers and sentences for people."""

import math
from dataclasses import replace

import pytest

from reports.clinics import facts, rounds, scored, statement, summary
from silotune.core.units import (
    change_text,
    count_text,
    epsilon_text,
    human_bytes,
    human_seconds,
    metric_text,
    names_text,
    number_text,
    scientific,
)
from silotune.reports.prose import decline, final_score, what_was_done
from silotune.reports.totals import outcome, silo_outcomes
from silotune.runs.folder import RoundRecord


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1250, "1.25 kB"),
        (298_240, "298 kB"),
        (999_499, "999 kB"),
        (999_500, "1 MB"),
        (17_894_400, "17.9 MB"),
        (3.2e9, "3.2 GB"),
        (4e12, "4 TB"),
        (5e15, "5,000 TB"),
    ],
)
def test_bytes(count, text):
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (7800, "2 h 10 min"),
        (math.nan, "–"),
    ],
)
def test_seconds(seconds, text):
    assert human_seconds(seconds) == text


def test_metrics():
    assert metric_text("accuracy", 0.8766) == "87.7 %"
    assert metric_text("perplexity", 12.3456) == "12.35"
    assert metric_text("loss", 0.5) == "0.500"
    assert metric_text("loss", math.nan) == metric_text("loss", None) == "–"
    assert change_text("accuracy", 0.5, 0.6) == "+10.0 points"
    assert change_text("perplexity", 40.0, 12.5) == "-27.5"
    assert change_text("accuracy", math.nan, 0.6) == "–"


def test_epsilon_is_an_upper_bound():
    assert epsilon_text(5.981) == "5.99"
    assert epsilon_text(6.0) == epsilon_text(5.9999999999) == epsilon_text(6.0000000001) == "6.00"
    assert epsilon_text(1e-4) == "0.01"
    assert epsilon_text(0.0) == "0.00"
    assert epsilon_text(math.nan) == "–"
    assert epsilon_text(math.inf) == "∞"
    for epsilon in (0.1, 1.005, 3.14159, 29.996, 1234.5678):
        assert float(epsilon_text(epsilon)) >= epsilon


def test_other_numbers():
    assert number_text(1e-5) == "1e-5"
    assert number_text(1.42137) == "1.421"
    assert scientific(3.14e-8) == "3.1e-8"
    assert scientific(0.0) == "0"
    assert scientific(math.nan) == number_text(None) == "–"
    assert (count_text(1, "round"), count_text(3200, "record")) == ("1 round", "3,200 records")


def test_an_outcome_sums_rounds_and_compares_the_ends():
    total = outcome(rounds(), "accuracy")
    assert total.rounds == 20
    assert total.bytes_up == 59 * 298_240
    assert total.before == rounds()[0].metrics["accuracy"]
    assert total.after == rounds()[-1].metrics["accuracy"]


def test_an_outcome_of_nothing():
    total = outcome([], "accuracy")
    assert (total.rounds, total.seconds, total.bytes_up) == (0, 0.0, 0)
    assert math.isnan(total.before)
    assert math.isnan(total.after)


def test_times_that_are_not_told_have_no_sum():
    before, one, *_ = rounds()
    assert outcome([before, one], "accuracy").seconds == one.seconds
    hidden = replace(one, seconds=math.nan)
    assert math.isnan(outcome([before, one, hidden], "accuracy").seconds)


def test_before_training_is_not_after():
    only = outcome(rounds()[:1], "accuracy")
    assert only.before == 0.23
    assert math.isnan(only.after)


def test_rounds_that_were_not_scored_are_passed_over():
    lines = [*rounds()[:6], replace(rounds()[6], metrics={}, silos={})]
    assert outcome(lines, "accuracy").after == rounds()[5].metrics["accuracy"]
    hill = silo_outcomes(facts(), lines, None)[2]
    assert hill.after == rounds()[5].silos["hill"]["accuracy"]


def test_a_baseline_that_diverged():
    lost = replace(facts(), baselines={"silo-alone": {"hill": {"accuracy": None}}})
    assert math.isnan(silo_outcomes(lost, rounds(), None)[2].alone)


def test_a_resumed_run_without_its_first_line():
    later = outcome(rounds()[3:], "accuracy")
    assert math.isnan(later.before)
    done = what_was_done(summary(), facts(), later, statement())
    assert "Accuracy is 87.7 %" in done


def test_silos_that_were_not_scored():
    rows = silo_outcomes(replace(facts(), baselines={}), [RoundRecord(round=0)], None)
    assert [row.silo for row in rows] == ["north", "harbour", "hill"]
    assert all(math.isnan(x) for row in rows for x in (row.before, row.alone, row.after))
    assert [row.num_examples for row in rows] == [1200, 800, 400]


def test_the_final_score():
    assert final_score(facts()) == ""
    text = final_score(replace(facts(), scored=scored()))
    assert text.startswith("The finished adapter on the records that silos hold out: accuracy 85.0")
    assert text.endswith("; n = 200.")


@pytest.mark.parametrize(
    ("metric", "before", "after", "worse"),
    [
        ("accuracy", 0.727, 0.027, True),
        ("accuracy", 0.5, 0.5, False),
        ("accuracy", 0.5, 0.6, False),
        ("perplexity", 236.0, 307.0, True),
        ("perplexity", 236.0, 200.0, False),
        ("perplexity", 236.0, math.nan, True),
        ("accuracy", math.nan, 0.5, None),
    ],
)
def test_a_result_worse_than_the_start_is_said(metric, before, after, worse):
    """Also one that is no number; of what was not scored nothing is said."""
    told = outcome(
        [
            RoundRecord(round=-1, metrics={metric: before}),
            RoundRecord(round=0, metrics={metric: after}),
        ],
        metric,
    )
    assert told.worse is worse
    assert decline(told).startswith("Worse than before training") == bool(worse)
    unscored = outcome([RoundRecord(round=-1, metrics={metric: before})], metric)
    assert (unscored.worse, decline(unscored)) == (None, "")


def test_the_sentence_says_from_what_to_what():
    lines = [
        RoundRecord(round=i - 1, metrics={"accuracy": a}) for i, a in enumerate((0.727, 0.027))
    ]
    assert "accuracy went from 72.7 % to 2.7 %" in decline(outcome(lines, "accuracy"))


def test_names_beyond_the_first_few_are_a_number():
    assert names_text(["a", "b", "c"], 2) == "a, b, c"
    assert names_text(list("abcd"), 2) == "a, b and 2 others"
