"""What a site was asked for, and of which round it was heard last."""

import pytest

from silotune.privacy.ledger.entry import METRIC, UPDATE
from silotune.runs.unheard import Hearing, Order


@pytest.mark.parametrize(
    ("orders", "last"),
    [
        ([], None),
        ([Order(METRIC, 0, "s")], None),  # of the state that nobody has trained
        ([Order(METRIC, 0, "s"), Order(UPDATE, 0, "s")], 0),
        ([Order(UPDATE, 2, "s"), Order(METRIC, 3, "t")], 2),
    ],
)
def test_a_score_is_of_the_round_before_it(orders, last):
    hearing = Hearing()
    for order in orders:
        hearing = hearing.asked(order)
    assert hearing.heard().last_heard == last
    assert hearing.heard().open == ()


def test_what_was_heard_of_stays_so_where_nothing_was_asked_since():
    assert Hearing(last_heard=4).heard().last_heard == 4
    assert Hearing(last_heard=4).asked(Order(METRIC, 0, "s")).heard().last_heard == 4
