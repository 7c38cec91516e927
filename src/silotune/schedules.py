"""Floor 2: schedules. What moves, is shared and is folded, in which round.

The state of local optimisers begins afresh in every round, so none outlives a change of basis.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from silotune.core import Plan


class Schedule(Protocol):
    """Round number in, orders out. Pure: the same plan on every machine."""

    def plan(self, round: int, sites: Sequence[str] = ()) -> Plan:
        """Orders for ``round`` (0-based).

        Args:
            round: counts from 0.
            sites: all there are, for schedules that choose among them.
        """
        ...

    def plans(self) -> tuple[Plan, ...]:
        """All that differ."""
        ...


@dataclass(frozen=True)
class Constant:
    """The same plan every round: FedIT, FFA-LoRA, the linear probe; LA-LoRA's phases."""

    always: Plan

    def plan(self, round: int, sites: Sequence[str] = ()) -> Plan:
        """Ignore the round."""
        return self.always

    def plans(self) -> tuple[Plan, ...]:
        """The one."""
        return (self.always,)


@dataclass(frozen=True)
class AlternateRounds:
    """One plan after the other, over and over: RoLoRA (arXiv 2409.02346)."""

    turns: tuple[Plan, ...]

    def plan(self, round: int, sites: Sequence[str] = ()) -> Plan:
        """The next in turn."""
        return self.turns[round % len(self.turns)]

    def plans(self) -> tuple[Plan, ...]:
        """Every turn."""
        return self.turns


@dataclass(frozen=True)
class Chain:
    """Every so many rounds the pair is folded into the base and a fresh one begins.

    FLoRA (arXiv 2409.05976) with ``every`` = 1; seeded projectors that change with the rounds.

    Raises:
        ValueError: if ``every`` is not positive.
    """

    link: Plan
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"method.fold_every: must be at least 1, not {self.every}")

    def plan(self, round: int, sites: Sequence[str] = ()) -> Plan:
        """Fold after the last round of a link."""
        return replace(self.link, fold=(round + 1) % self.every == 0)

    def plans(self) -> tuple[Plan, ...]:
        """A link, and its end."""
        return self.link, replace(self.link, fold=True)
