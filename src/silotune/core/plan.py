"""Plan: what one round trains and shares. Data, not behaviour."""

from collections.abc import Iterable
from dataclasses import dataclass

from .factors import Role


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Train ``roles`` for ``steps`` local steps, then go to the next phase."""

    roles: frozenset[Role]
    steps: int = 1


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Orders for one round.

    Attributes:
        phases: cycled over the local steps of every client.
        share: roles that are uploaded and averaged.
    """

    phases: tuple[Phase, ...]
    share: frozenset[Role]

    def trained(self) -> frozenset[Role]:
        """Every role that some phase moves."""
        return frozenset().union(*(phase.roles for phase in self.phases))

    def outline(self) -> tuple[list[tuple[list[str], int]], list[str]]:
        """Phases and shared roles in a fixed order, for messages and fingerprints."""
        phases = [(sorted(map(str, phase.roles)), phase.steps) for phase in self.phases]
        return phases, sorted(map(str, self.share))


def plan_of(phases: Iterable[tuple[Iterable[str], int]], share: Iterable[str]) -> Plan:
    """The plan of an outline."""
    return Plan(
        phases=tuple(Phase(roles=frozenset(map(Role, r)), steps=n) for r, n in phases),
        share=frozenset(map(Role, share)),
    )
