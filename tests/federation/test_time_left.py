"""What is left of a run: rounds, scores and baselines are counted, each from its own time."""

import math

import pytest

from silotune.federation.time_left import TimeLeft
from silotune.runs.folder import RoundRecord

SCORE, ROUND = 3.0, 140.0


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def estimates(rounds, every, baseline=False, seconds=ROUND, resumed=0):
    """Of a run whose rounds and scores always take the same time; and what was really left."""
    clock = Clock()
    left = TimeLeft(rounds, lambda done: done % every == 0 or done == rounds, baseline, clock)
    told, ends = [], []
    for i in range(resumed or -1, rounds):
        clock.time += SCORE if i < 0 else ROUND + SCORE * left.scored(i + 1)
        told.append(left.after(RoundRecord(round=i, seconds=0.0 if i < 0 else seconds)))
        ends.append(clock.time)
    extra = rounds * ROUND + SCORE if baseline else 0.0
    return told, [ends[-1] + SCORE + extra - end for end in ends]


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("every", [1, 4])
def test_the_estimate_is_right_from_the_first_round_on(every, baseline):
    (before, *told), (_, *really) = estimates(8, every, baseline)
    assert math.isnan(before), "how long a round takes is not known yet"
    assert told == pytest.approx(really)


def test_baselines_are_counted_to_the_last_round():
    told, _ = estimates(60, 1, baseline=True)
    assert told[-1] > 60 * ROUND


def test_a_resumed_run_that_has_not_scored_yet_tells_nothing_of_scores():
    told, really = estimates(8, 4, resumed=1)
    assert [math.isnan(t) for t in told] == [True, True, False, False, False, False, False]
    assert told[2:] == pytest.approx(really[2:])


def test_where_time_is_secret_nothing_is_told():
    told, _ = estimates(3, 1, seconds=math.nan)
    assert all(map(math.isnan, told))
    left = TimeLeft(3, bool)
    assert left.text(RoundRecord(round=0, seconds=math.nan)) == ""


def test_seconds_that_were_rounded_up_are_no_more_than_what_passed():
    """As private rounds are: a round of 0.2 s is told as 1 s."""
    clock = Clock()
    left = TimeLeft(10, bool, now=clock)
    clock.time = 0.2
    assert left.after(RoundRecord(round=0, seconds=1.0)) == pytest.approx(9 * 0.2)
