"""Sums: the charges of a book, added up as they come, by who made them and who paid."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable
from typing import NamedTuple

from .composition import Priced, summed


class Part(NamedTuple):
    """Whose charges are added up.

    Attributes:
        run: that charged.
        silo: by what name they took part.
        records: name of the set that paid.
    """

    run: str
    silo: str
    records: str


class Sums:
    """What every part of a book has charged.

    Attributes:
        of: part -> release and kind -> steps, oldest part first.
        seeded: parts whose noise came from a seed.
        payments: how many each run has made.
    """

    def __init__(self) -> None:
        self.of: dict[Part, Counter[Priced]] = {}
        self.seeded: set[Part] = set()
        self.payments = Counter[str]()
        self._numbers: dict[str, list[int]] = {}  # set -> which of the parts are its
        self._parts: list[Part] = []
        self._alike: dict[Hashable, int] = {}
        self._kinds: dict[Part, int] = {}

    def add(self, part: Part, charge: Priced, *, seeded: bool) -> None:
        """One more charge."""
        if part not in self.of:
            self.of[part] = Counter()
            self._numbers.setdefault(part.records, []).append(len(self._parts))
            self._parts.append(part)
        self.of[part].update(summed([charge]))
        self.payments[part.run] += 1
        self._kinds.pop(part, None)
        if seeded:
            self.seeded.add(part)

    @property
    def sets(self) -> int:
        """How many sets have paid."""
        return len(self._numbers)

    def kind(self, part: Part) -> int:
        """A number that parts have in common whose charges are equal, and equally protected."""
        if part not in self._kinds:
            charged = frozenset(self.of[part].items()), part in self.seeded
            self._kinds[part] = self._alike.setdefault(charged, len(self._alike))
        return self._kinds[part]

    def parts(self, sets: Iterable[str]) -> list[Part]:
        """What was charged to any of these sets, oldest first."""
        numbers = sorted(n for name in sets for n in self._numbers.get(name, ()))
        return [self._parts[n] for n in numbers]
