"""What the orders of a round end with alike lies in the store once, and every order comes whole."""

import os
from itertools import takewhile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silotune.runtimes.ray_orders import PART, SMALL, Shelf, common_end


class Store:
    """Ray's, as far as it is needed here."""

    def __init__(self):
        self.puts = []

    def put(self, array):
        self.puts.append(array.nbytes)
        return array

    @staticmethod
    def whole(parts):
        """As an actor puts it together."""
        rest = b"" if parts.shared is None else bytes(parts.shared)
        return parts.own + rest[len(rest) - parts.size :]


@given(st.binary(max_size=40), st.binary(max_size=40), st.binary(max_size=40))
def test_the_common_end_is_the_longest(one, other, end):
    found = common_end(*(np.frombuffer(text + end, np.uint8) for text in (one, other)))
    assert (one + end)[len(one + end) - found :] == (other + end)[len(other + end) - found :]
    first, second = (one + end)[::-1], (other + end)[::-1]
    same = takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    assert found == len([*same])


@pytest.mark.parametrize("at", [0, 1, PART - 1, PART, PART + 1, 2 * PART + 9])
def test_the_common_end_is_found_in_parts(at):
    one = np.zeros(2 * PART + 10, np.uint8)
    other = one.copy()
    assert common_end(one, other) == len(one)
    other[at] = 1
    assert common_end(one[3:], other) == (len(one) - at - 1 if at >= 3 else len(one) - 3)


def test_the_state_of_a_round_is_put_once_for_each_rank_however_many_are_asked():
    store = Store()
    shelf, states = Shelf(store.put), [os.urandom(500_000), os.urandom(300_000)]
    for client in range(20):
        order = f"to client {client}:".encode() * (client + 1) + states[client % 2]
        assert Store.whole(shelf.parts(order)) == order
    assert len(store.puts) == 2
    assert sum(store.puts) < 801_000


@pytest.mark.parametrize("size", [0, 1, SMALL])
def test_a_small_order_travels_whole(size):
    store, order = Store(), os.urandom(size)
    parts = Shelf(store.put).parts(order)
    assert (parts.own, parts.shared, parts.size, store.puts) == (order, None, 0, [])


def test_orders_that_have_nothing_in_common_are_put_each():
    store = Store()
    shelf = Shelf(store.put)
    for _ in range(3):
        order = os.urandom(SMALL + 1)
        assert Store.whole(shelf.parts(order)) == order
    assert len(store.puts) == 3
    assert np.frombuffer(order, np.uint8).nbytes == store.puts[-1]
