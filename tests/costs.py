"""What tests cost in CPU time, and which of the dear ones wait for CI, or for ``make test-all``.

Of a group all cheap cases run; of its dear ones, from the cheapest function on, as many as fit into
a share, and one at least. Of a function those are taken that are furthest apart, and laws begin at
different ones, so that they share the methods. At hand a group is a law, or a file that holds none,
and what is left is ``full``. In CI it is a function, and what is left is ``slow``; but who has
said by ``full`` which cases meet nothing new runs in all others, and so does a law: these are the
kinds of methods and tasks. What a case of a function costs is measured: ``make test-costs``.
"""

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import fmean
from zlib import crc32

RECORD = Path(__file__).parent / "costs.json"
"""Function -> CPU seconds of a case, with what it starts; of dear ones."""

DEAR = 0.1
"""CPU seconds."""

AT_HAND = 0.15
"""CPU seconds of the dear cases of a law or a file."""

IN_CI = 1.0
"""CPU seconds of the dear cases of a function."""


def law_or_file(case: str) -> str:
    """The group of a case at hand."""
    return function(case) if _is_of_law(case) else case.partition("::")[0]


def function(case: str) -> str:
    """The function of a case, by its name, which xdist ends in the group that stays on one core."""
    return re.split(r"[\[@]", case, maxsplit=1)[0]


def too_many_at_hand(cases: Iterable[str], costs: Mapping[str, float]) -> set[str]:
    """Which of these cases are ``full``."""
    return too_many(cases, costs, law_or_file, AT_HAND)


def too_many_in_ci(cases: Mapping[str, bool], costs: Mapping[str, float]) -> set[str]:
    """Which of these cases, by whether they are ``full``, are ``slow``."""
    of_kinds = {function(case) for case, full in cases.items() if full or _is_of_law(case)}
    others = [case for case, full in cases.items() if full or function(case) not in of_kinds]
    return too_many(others, costs, function, IN_CI)


def too_many(
    cases: Iterable[str], costs: Mapping[str, float], group: Callable[[str], str], share: float
) -> set[str]:
    """Which of these cases are left to another run.

    Args:
        cases: their names; order is of no account.
        costs: CPU seconds of a case, by function; what is not there is cheap.
        group: of a case.
        share: CPU seconds of a group's dear cases.
    """
    groups: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for case in sorted(cases):
        groups[group(case)][function(case)].append(case)
    left: set[str] = set()
    for functions in groups.values():
        dear = sorted((costs[name], name) for name in functions if costs.get(name, 0) > DEAR)
        room, needed = share, int(len(dear) == len(functions))
        for cost, name in dear:
            own = functions[name]
            count = min(len(own), max(int(room / cost), needed))
            room, needed = room - count * cost, 0
            left |= {*own} - {*_apart(own, count, crc32(name.encode()))}
    return left


def renewed(before: Mapping[str, float], measured: Mapping[str, float]) -> dict[str, float]:
    """What is dear now.

    Args:
        before: the record; what is not measured anew stays.
        measured: CPU seconds by case.
    """
    cases: defaultdict[str, list[float]] = defaultdict(list)
    for case, seconds in measured.items():
        cases[function(case)].append(seconds)
    now = {**before, **{name: fmean(own) for name, own in cases.items()}}
    return {name: round(cost, 2) for name, cost in sorted(now.items()) if cost > DEAR}


def read() -> dict[str, float]:
    """The record."""
    return json.loads(RECORD.read_text())


def write(costs: Mapping[str, float]) -> None:
    """Replace the record."""
    RECORD.write_text(json.dumps(costs, indent=0) + "\n")


def _is_of_law(case: str) -> bool:
    return case.startswith("tests/laws/")


def _apart(cases: list[str], count: int, first: int) -> list[str]:
    return [cases[(first + i * len(cases) // count) % len(cases)] for i in range(count)]
