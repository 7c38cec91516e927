"""Plan: what one round trains and shares. Data, not behaviour."""

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
