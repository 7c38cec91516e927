"""The cases that run at hand meet every value, and all others are left to CI and not dropped."""

from itertools import chain, combinations, product

from covering import (
    every_combination,
    every_method,
    every_pair,
    every_point,
    fitting,
    representatives,
)
from silotune.methods import built_in


def divided(mark) -> tuple[list[tuple], list[tuple]]:
    """The cases at hand, and the others."""
    cases = mark.args[1]
    full = [bool([m for m in case.marks if m.name == "full"]) for case in cases]
    return (
        [case.values for case, left in zip(cases, full, strict=True) if not left],
        [case.values for case, left in zip(cases, full, strict=True) if left],
    )


def test_a_product_is_whole_and_every_value_is_at_hand():
    at_hand, left = divided(every_combination(a=[1, 2, 3, 4], b="xyz", c=[True, False]))
    assert sorted(at_hand + left) == sorted(product([1, 2, 3, 4], "xyz", [True, False]))
    assert len(at_hand) == 4
    assert [set(values) for values in zip(*at_hand, strict=True)] == [
        {1, 2, 3, 4},
        set("xyz"),
        {True, False},
    ]


def test_methods_that_are_one_to_the_engine_are_represented_by_the_first():
    assert representatives(["fedit", "ffa-lora", "lora-rite", "lora-fa"]) == ["fedit", "ffa-lora"]
    assert representatives(["lora-rite", "lora-fa"]) == ["lora-fa", "lora-rite"]
    assert len(representatives(built_in())) < len(built_in())


def test_every_method_is_in_ci_and_every_optimiser_at_hand():
    at_hand, left = divided(every_method())
    assert sorted(at_hand + left) == sorted((method,) for method in built_in())
    thirds = [divided(every_method(part=(i, 3)))[0] for i in range(3)]
    assert all(thirds)
    assert sorted(chain.from_iterable(thirds)) == sorted(at_hand)
    at_hand, left = divided(every_point())
    points = {(method, optimizer) for method in built_in() for optimizer in fitting(method)}
    assert len(at_hand + left) == len(points)
    assert set(at_hand + left) == points
    assert sorted(method for method, _ in at_hand) == representatives(built_in())
    assert {type(o).__name__ for _, o in at_hand} == {"SGD", "AdamW"}


def test_ci_meets_every_pair_and_the_rest_is_slow():
    cases = every_pair(a=[1, 2, 3, 4], b="xyz", c=[True, False]).args[1]
    whole = [case.values for case in cases]
    kept = [c.values for c in cases if not any(m.name == "slow" for m in c.marks)]
    assert sorted(whole) == sorted(product([1, 2, 3, 4], "xyz", [True, False]))
    assert len(kept) < len(whole)
    for i, j in combinations(range(3), 2):
        assert {(v[i], v[j]) for v in kept} == {(v[i], v[j]) for v in whole}
