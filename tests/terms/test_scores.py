"""How many states of a run are scored, without counting them one by one."""

import pytest

from sites.offers import terms


@pytest.mark.parametrize("rounds", [1, 2, 7, 20])
@pytest.mark.parametrize("every", [1, 2, 3, 7, 20, 21])
def test_as_many_scores_as_rounds_that_are_scored(rounds, every):
    of = terms(rounds=rounds, eval_every=every)
    assert of.training.scores == sum(map(of.scored, range(1, rounds + 1)))


def test_the_state_before_the_first_round_is_not_scored():
    assert not terms().scored(0)
