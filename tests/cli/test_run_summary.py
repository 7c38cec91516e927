"""The end of a run in a line says what is known, and nothing of what is not."""

import math

import pytest

from silotune.cli.run_summary import _scores
from silotune.reports.totals import Outcome


def ended(before: float, after: float) -> str:
    return _scores(
        Outcome(
            metric="accuracy",
            before=before,
            after=after,
            worse=None,
            rounds=3,
            seconds=math.nan,
            bytes_up=1000,
            bytes_down=2000,
        )
    )


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (0.5, 0.75, "accuracy: 50.0 % before, 75.0 % after 3 rounds (1 kB up, 2 kB down)"),
        (math.nan, 0.75, "accuracy: 75.0 % after 3 rounds (1 kB up, 2 kB down)"),
        (math.nan, math.nan, "3 rounds, nobody told a score (1 kB up, 2 kB down)"),
    ],
)
def test_it_says_what_is_known(before, after, line):
    assert ended(before, after) == line
