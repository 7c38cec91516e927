"""Floor 2: schedules. What moves, is shared and is folded, in which round."""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch

from silotune.core import Key, Role, RoundPlan, Turn, generator, place_of


class Schedule(Protocol):
    """Round number in, orders out. Pure: the same plan on every machine.

    ``plan`` and ``plans`` make one; inherit from this class for the rest, which claims nothing.
    """

    @abstractmethod
    def plan(self, round: int, sites: Sequence[str] = ()) -> RoundPlan:
        """Orders for ``round`` (0-based).

        Args:
            round: counts from 0.
            sites: all there are, for schedules that choose among them.
        """

    @abstractmethod
    def plans(self) -> tuple[RoundPlan, ...]:
        """All that differ."""

    @property
    def steady(self) -> bool:
        """Whether every round trains and shares the same tensors, so that noise may be correlated.

        (A plan that folds writes them in a new basis, which is looked at besides.)
        """
        return False


@dataclass(frozen=True)
class Constant(Schedule):
    """The same plan every round: FedIT, FFA-LoRA, the linear probe; LA-LoRA's phases."""

    steady: ClassVar[bool] = True

    always: RoundPlan

    def plan(self, round: int, sites: Sequence[str] = ()) -> RoundPlan:
        """Ignore the round."""
        return self.always

    def plans(self) -> tuple[RoundPlan, ...]:
        """The one."""
        return (self.always,)


@dataclass(frozen=True)
class AlternateRounds(Schedule):
    """One plan after the other, over and over: RoLoRA (arXiv 2409.02346)."""

    turns: tuple[RoundPlan, ...]

    def plan(self, round: int, sites: Sequence[str] = ()) -> RoundPlan:
        """The next in turn."""
        return self.turns[round % len(self.turns)]

    def plans(self) -> tuple[RoundPlan, ...]:
        """Every turn."""
        return self.turns


@dataclass(frozen=True, kw_only=True)
class Turning(Schedule):
    """Clients turn their pairs before they send them, towards A in odd rounds and B in even ones.

    FedRot-LoRA (arXiv 2602.23638). Not in round 0, in which B was 0. What is sent is then written
    in another basis in every round, so that correlated noise is refused.

    Attributes:
        link: what trains and is shared.
        share: how far they turn.
    """

    link: RoundPlan
    share: float = 1.0

    def plan(self, round: int, sites: Sequence[str] = ()) -> RoundPlan:
        """Plain in round 0, then in turn."""
        return replace(self.link, turn=self._turn(round) if round else None)

    def plans(self) -> tuple[RoundPlan, ...]:
        """The three."""
        return tuple(self.plan(round) for round in range(3))

    def _turn(self, round: int) -> Turn:
        return Turn(Role.A if round % 2 else Role.B, self.share)


@dataclass(frozen=True)
class Chain(Schedule):
    """Every so many rounds the pair is folded into the base and a fresh one begins.

    COLA (arXiv 2401.04151) and, with one factor frozen, RAC-LoRA (arXiv 2410.08305); FLoRA (arXiv
    2409.05976) with ``every`` = 1; seeded projectors that change with the rounds.

    Raises:
        ValueError: if ``every`` is not positive.
    """

    steady: ClassVar[bool] = True

    link: RoundPlan
    every: int = 1

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"fold_every: must be at least 1, not {self.every}")

    def plan(self, round: int, sites: Sequence[str] = ()) -> RoundPlan:
        """Fold after the last round of a link."""
        return replace(self.link, fold=(round + 1) % self.every == 0)

    def plans(self) -> tuple[RoundPlan, ...]:
        """A link, and its end."""
        return self.link, replace(self.link, fold=True)


@dataclass(frozen=True, kw_only=True)
class Boost(Schedule):
    """Each round trains the pairs of a few layers, which are then folded into the base.

    XGBLoRA (arXiv 2410.19694), a round being one booster. The layers are drawn uniformly, without
    replacement, from (seed, round): the same for all clients, and no record plays a part. All sites
    of a drawn layer train; the others stay at B = 0. A site that is in no layer is one by itself.

    Attributes:
        link: what trains and is shared at the sites that are drawn; what is not of a pair always.
        layers: how many are drawn; None for a third of them (the paper's best has 11 of 32).
        seed: decides which.

    Raises:
        ValueError: if fewer than one are to be drawn.
    """

    link: RoundPlan
    layers: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.layers is not None and self.layers < 1:
            raise ValueError(f"booster_layers: must be at least 1, not {self.layers}")

    def plan(self, round: int, sites: Sequence[str] = ()) -> RoundPlan:
        """The pairs of all sites that are not drawn are fixed.

        Raises:
            ValueError: if there are not so many layers.
        """
        drawn = set(self.drawn(round, sites))
        still = {Key(s, role) for s in sites if s not in drawn for role in (Role.A, Role.B)}
        return replace(self.link, fold=True, fixed=self.link.fixed | still)

    def plans(self) -> tuple[RoundPlan, ...]:
        """But for the sites, the one."""
        return (replace(self.link, fold=True),)

    def drawn(self, round: int, sites: Sequence[str]) -> tuple[str, ...]:
        """Which of ``sites`` train in ``round``.

        Raises:
            ValueError: if there are not so many layers.
        """
        layers = list(dict.fromkeys(map(_layer, sites)))
        number = -(-len(layers) // 3) if self.layers is None else self.layers
        if sites and number > len(layers):
            raise ValueError(
                f"booster_layers: {number} layers cannot be drawn where only {len(layers)} "
                "are adapted; write fewer, or null for a third of them"
            )
        order = torch.randperm(len(layers), generator=generator(self.seed, "boost", round))
        chosen = {layers[i] for i in order[:number].tolist()}
        return tuple(site for site in sites if _layer(site) in chosen)


def _layer(site: str) -> str:
    """The layer that a site is in; the site itself if it is in none."""
    place = place_of(site)
    return f"{place.stack}.{place.layer}" if place else site
