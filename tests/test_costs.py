"""What is dear is thinned at hand, and no file and no law is left out."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from costs import (
    AT_HAND,
    DEAR,
    IN_CI,
    function,
    law_or_file,
    renewed,
    too_many,
    too_many_at_hand,
    too_many_in_ci,
)

LAW = "tests/laws/test_a.py::test_"

cases = st.dictionaries(
    st.builds(
        "{}::test_{}[{}]".format,
        st.sampled_from(["tests/laws/test_a.py", "tests/b/test_b.py", "tests/test_c.py"]),
        st.integers(0, 3),
        st.integers(0, 9),
    ),
    st.floats(0, 4),
)


@given(cases)
def test_of_every_law_and_every_file_one_case_is_at_hand_and_all_that_are_cheap(measured):
    costs = renewed({}, measured)
    left = too_many_at_hand(measured, costs)
    kept = {*measured} - left
    assert left <= {*measured}
    assert not [case for case in left if function(case) not in costs]
    for group in set(map(law_or_file, measured)):
        own = [case for case in kept if law_or_file(case) == group]
        dear = [costs[function(case)] for case in own if costs.get(function(case), 0) > DEAR]
        assert own
        assert len(dear) <= 1 or sum(dear) <= AT_HAND + 1e-9


def test_the_cheapest_stay_and_order_is_of_no_account():
    costs = {"tests/a.py::one": 0.8, "tests/a.py::two": 0.2, "tests/a.py::three": 9.0}
    names = [*costs, "tests/a.py::cheap"]
    for order in (names, names[::-1]):
        assert too_many(order, costs, law_or_file, 1.0) == {"tests/a.py::three"}


def test_in_ci_are_of_every_function_cases_for_a_share_and_every_kind():
    one, two, kinds, law = "tests/a.py::one", "tests/a.py::two", "tests/a.py::kinds", f"{LAW}x"
    costs = dict.fromkeys((one, kinds, law), IN_CI + 1) | {two: IN_CI / 3}
    cases = {f"{name}[{i}]": name == kinds and i > 3 for name in costs for i in range(6)}
    kept = {*cases} - too_many_in_ci(cases, costs)
    assert Counter(map(function, kept)) == {one: 1, two: 3, kinds: 5, law: 6}
    assert {f"{kinds}[{i}]" for i in range(4)} < kept


def test_cases_of_a_dear_law_are_far_apart_and_other_ones_meet_others():
    def kept(law: str) -> list[int]:
        names = [f"{LAW}{law}[{i}]" for i in range(9)]
        left = too_many(names, {LAW + law: 0.3}, law_or_file, 0.9)
        return [i for i, name in enumerate(names) if name not in left]

    assert {(b - a) % 9 for a, b in zip(kept("x"), kept("x")[1:], strict=False)} == {3}
    assert len({tuple(kept(law)) for law in "abcdefghi"}) == 3


def test_what_is_measured_anew_replaces_what_was_known_and_cheap_functions_are_not_kept():
    before = {"a": 1.0, "b": 2.0, "c": 3.0}
    measured = {"a[1]": 0.4, "a[2]@one core": 0.8, "b": DEAR, "d": 5.0}
    assert renewed(before, measured) == {"a": 0.6, "c": 3.0, "d": 5.0}
