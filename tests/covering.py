"""Which cases of a product run at hand; the rest is marked ``full`` and runs in CI, as far as it is
not dear (``costs``).

To the engine a method is a schedule, a rule of the server and an adapter. One method for each that
differs stands for all here, with one optimiser; every other value of a product occurs with some of
them. Dear laws of the same thing share the methods, a part each. So every value is met in every run
of the tests, and every combination in ``make test-all``.
"""

import os
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import product

import pytest
from hypothesis import settings

from silotune.methods import Axes, IncompatibleMethodError, built_in
from silotune.optim import SGD, AdamW
from toys import axes

OPTIMIZERS = (SGD(lr=0.3), AdamW(lr=0.02))

Part = tuple[int, int]
"""Which of so many laws that share the representatives: (0, 2) and (1, 2), say."""

WHOLE: Part = (0, 1)


@cache
def fitting(method: str) -> tuple[object, ...]:
    """The optimisers that a method takes; never none."""
    found = tuple(optimizer for optimizer in OPTIMIZERS if _axes(method, optimizer))
    assert found, method
    return found


def plain(method: str, **options: object) -> Axes:
    """With the first optimiser that it takes."""
    return axes(method, fitting(method)[0], **options)


def representatives(methods: Iterable[str]) -> list[str]:
    """The first of these of every schedule x rule x adapter, sorted by name."""
    firsts: dict[str, str] = {}
    for method in methods:
        firsts.setdefault(_signature(method), method)
    return sorted(firsts.values())


@cache
def _signature(method: str) -> str:
    axes = plain(method)
    return repr((axes.schedule, axes.aggregator, axes.adapter))


def every_method(
    keep: Callable[[str], bool] = lambda method: True,
    part: Part = WHOLE,
    **others: Sequence[object],
) -> pytest.MarkDecorator:
    """Parametrise by ``method``, times the values of ``others``.

    Args:
        keep: whether the law speaks of this method.
        part: of the representatives, of a dear law; other laws meet the others.
        others: names of further arguments, each with its values.
    """
    methods = [m for m in built_in() if keep(m)]
    at_hand = _diagonal([_part(representatives(methods), part), *others.values()])
    return _cases(("method", *others), [sorted(methods), *others.values()], at_hand)


def every_combination(**axes: Sequence[object]) -> pytest.MarkDecorator:
    """Parametrise by the product of ``axes``: the names of arguments, each with its values."""
    return _cases(tuple(axes), list(axes.values()), _diagonal(list(axes.values())))


def every_pair(**axes: Sequence[object]) -> pytest.MarkDecorator:
    """As ``every_combination`` in ``make test-all``. CI meets every combination of the other axes
    with one value of the last, in turn, and so each pair of values of any two axes."""
    *others, last = axes.values()
    at_hand = _diagonal(list(axes.values()))
    cases = []
    for places in product(*(range(len(axis)) for axis in (*others, last))):
        values = tuple(axis[i] for axis, i in zip(axes.values(), places, strict=True))
        in_turn = sum(places[:-1]) % len(last) == places[-1]
        marks = [] if values in at_hand else [pytest.mark.full if in_turn else pytest.mark.slow]
        cases.append(pytest.param(*values, marks=marks))
    return pytest.mark.parametrize(tuple(axes), cases)


def one_combination(**axes: Sequence[object]) -> pytest.MarkDecorator:
    """As ``every_combination``; of these dear cases the first values run at hand."""
    first = tuple(values[0] for values in axes.values())
    return _cases(tuple(axes), list(axes.values()), {first})


def full(*values: object) -> object:
    """A case of ``parametrize`` that is left to CI."""
    return _case(values, at_hand=False)


def some(cases: Iterable[str], *at_hand: str) -> list[object]:
    """All cases by name, of which those named here run at hand."""
    names = list(cases)
    assert at_hand
    assert {*at_hand} <= {*names}, at_hand
    return [_case((name,), name in at_hand, name) for name in names]


def examples(at_hand: int, in_full: int) -> settings:
    """How many examples of a dear law are tried at hand, and in CI."""
    return settings(max_examples=in_full if os.environ.get("CI") else at_hand, deadline=None)


def every_point(part: Part = WHOLE) -> pytest.MarkDecorator:
    """Parametrise by ``method`` and ``optimizer``, all that go together; ``part`` as there."""
    chosen = _part(representatives(built_in()), part)
    turn = {method: i for i, method in enumerate(representatives(built_in()))}
    cases = []
    for method in sorted(built_in()):
        optimizers = fitting(method)
        for i, optimizer in enumerate(optimizers):
            at_hand = method in chosen and turn[method] % len(optimizers) == i
            name = f"{method}-{type(optimizer).__name__}"
            cases.append(_case((method, optimizer), at_hand, name))
    return pytest.mark.parametrize(("method", "optimizer"), cases)


def _part(methods: list[str], part: Part) -> list[str]:
    which, of = part
    return methods[which::of]


def _diagonal(axes: Sequence[Sequence[object]]) -> set[tuple[object, ...]]:
    """As few combinations as the longest axis has values; every value of every axis is in one."""
    longest = max(map(len, axes))
    return {tuple(axis[i % len(axis)] for axis in axes) for i in range(longest)}


def _cases(
    names: tuple[str, ...],
    axes: Sequence[Sequence[object]],
    at_hand: set[tuple[object, ...]],
) -> pytest.MarkDecorator:
    cases = list(product(*axes))
    assert at_hand <= set(cases)
    return pytest.mark.parametrize(names, [_case(case, case in at_hand) for case in cases])


def _case(values: tuple[object, ...], at_hand: bool, name: str | None = None) -> object:
    return pytest.param(*values, id=name, marks=() if at_hand else pytest.mark.full)


def _axes(method: str, optimizer: object) -> Axes | None:
    try:
        return axes(method, optimizer)
    except IncompatibleMethodError:
        return None
