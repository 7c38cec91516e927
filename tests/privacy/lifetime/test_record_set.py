"""How a set of records is told again, and when a record may have been in another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from silotune.privacy.lifetime.record_set import MOST_GROUPS, RecordSet, histories, keyed

KEY = b"k" * 32


def set_of(*names: object, where: str = "", whose: str = "north") -> RecordSet:
    contents = [str(name).encode() for name in names]
    return RecordSet(where=where, whose=whose, digests=keyed(contents, KEY))


def known(*sets: RecordSet) -> dict[str, RecordSet]:
    return {each.id: each for each in sets}


def test_order_and_equal_records_do_not_matter():
    assert set_of(1, 2, 3, 2).id == set_of(3, 2, 1).id
    assert len(set_of(1, 2, 3, 2).digests) == 3
    assert set_of(1, 2).id != set_of(1, 3).id


def test_nobody_without_the_key_can_try_contents():
    assert not set(keyed([b"a", b"b"], KEY)) & set(keyed([b"a", b"b"], b"other" * 8))


def test_a_set_comes_back_from_its_bytes():
    mine = set_of(*range(50), where="/data/north.csv")
    again = RecordSet.from_bytes(mine.to_bytes())
    assert (again.id, again.where, again.whose) == (mine.id, mine.where, mine.whose)
    assert np.array_equal(again.digests, mine.digests)


@given(st.sets(st.integers(0, 30)), st.sets(st.integers(0, 30)))
def test_it_is_told_which_records_another_set_holds(mine, other):
    held = set_of(*mine).held_by(set_of(*other))
    assert int(held.sum()) == len(mine & other)


def test_a_set_with_one_record_less_is_met_and_a_disjoint_one_is_not():
    mine, less, strange = set_of(*range(9)), set_of(*range(8)), set_of(10, 11)
    assert histories(mine, known(mine, less, strange)) == [frozenset({mine.id, less.id})]
    assert histories(strange, known(mine, less)) == [frozenset({strange.id})]


def test_the_same_place_is_met_though_every_record_was_edited():
    before = set_of(1, 2, where="/data/north.csv")
    after = set_of(3, 4, where="/data/north.csv")
    moved = set_of(5, 6, where="/data/new.csv")
    assert histories(after, known(before)) == [frozenset({after.id, before.id})]
    assert histories(moved, known(before, after)) == [frozenset({moved.id})]
    assert not set_of(1).shares_place(set_of(1)), "an unknown place is no place"
    other = set_of(3, where="/data/north.csv", whose="south")
    assert histories(other, known(before)) == [frozenset({other.id})]


def test_records_with_different_histories_are_told_apart():
    january, february, march = set_of(1, 2), set_of(3, 4), set_of(5, 6)
    both = set_of(2, 3, 4, 5)
    groups = histories(both, known(january, february, march))
    assert set(groups) == {frozenset({both.id, each.id}) for each in (january, february, march)}


def test_of_too_many_histories_all_records_have_all():
    sets = [set_of(i, where=f"/{i}") for i in range(MOST_GROUPS + 1)]
    mine = set_of(*range(MOST_GROUPS + 1))
    assert histories(mine, known(*sets)) == [frozenset({mine.id, *(each.id for each in sets)})]
    less = histories(set_of(*range(MOST_GROUPS)), known(*sets))
    assert {len(group) for group in less} == {2}


def records_of(group, sets):
    return set.intersection(*(sets[name] for name in group))


@given(st.lists(st.sets(st.integers(0, 12), min_size=1), min_size=1, max_size=5))
def test_every_record_is_covered_by_a_group_of_all_sets_that_hold_it(drawn):
    mine, *others = drawn
    sets = {f"{i}": set_of(*each, where=f"/{i}") for i, each in enumerate(others)}
    own = set_of(*mine)
    groups = histories(own, {each.id: each for each in sets.values()})
    for record in mine:
        holding = {sets[f"{i}"].id for i, each in enumerate(others) if record in each}
        assert any(holding <= group for group in groups)


@pytest.mark.parametrize("content", [b"", b"{}\n", b'{"version": 2}\n', b"[]\n1234"])
def test_what_is_no_set_is_refused(content):
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        RecordSet.from_bytes(content)
