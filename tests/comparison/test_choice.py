"""What trials choose where some of them fail: the best that ended, and one choice for all seeds."""

import pytest

from comparison.grids import RATES, Runner, grid
from silotune import compare
from silotune.comparison import compared
from silotune.comparison.record import read_note


def failing(rate):
    """A runner whose trials of one rate fail."""

    def fails(config):
        tried = config.train.seed == 1000 and config.train.learning_rate == rate
        return "out of memory" if tried else ""

    return Runner(fails)


def test_the_first_trial_may_fail_and_the_best_of_the_others_is_chosen(tmp_path):
    found = compare(grid(tune=RATES), tmp_path / "grid", runner=failing(0.1))
    assert all(g.runs[0].tuned == {"train.learning_rate": 0.5} for g in found.comparison.groups)


def test_a_cell_with_fewer_trials_than_others_says_so(tmp_path):
    found = compare(grid(tune=RATES), tmp_path / "grid", runner=failing(0.1))
    assert "method ffa · privacy.target_epsilon 1 (2 of 3: out of memory)" in found.markdown()
    again = compare(grid(tune=RATES), tmp_path / "grid", runner=Runner())
    assert "fewer trials" not in again.markdown()


def test_results_of_another_choice_are_put_aside_and_made_anew(tmp_path):
    first = compare(grid(tune=RATES), tmp_path / "grid", runner=failing(0.5))
    assert {run.tuned["train.learning_rate"] for run in first.runs if not run.trial} == {0.1}
    whole = compare(grid(tune=RATES), tmp_path / "whole", runner=Runner())
    runner = Runner()
    found = compare(grid(tune=RATES), tmp_path / "grid", runner=runner)
    assert len(runner.made) == 4 + 12
    assert found.markdown() == whole.markdown()
    earlier = tmp_path / "grid" / "cells" / "ffa" / "1" / "earlier-1"
    assert read_note(earlier / "seed-0").failed == "", "nothing finished is lost"


def test_results_say_what_they_were_made_with_while_another_choice_has_not_run(tmp_path):
    first = compare(grid(tune=RATES), tmp_path / "grid", runner=failing(0.5))
    late = Runner(stops_after=2)
    with pytest.raises(KeyboardInterrupt):
        compare(grid(tune=RATES), tmp_path / "grid", runner=late)
    assert len(late.made) == 2, "trials, of which the others are still missing"
    now = compared(tmp_path / "grid").comparison.groups
    assert [g.runs[0].tuned for g in now] == [g.runs[0].tuned for g in first.comparison.groups]
