"""Round plan: what one round trains, shares and folds. Data, not behaviour."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, cycle, islice
from typing import Any, Literal, get_args

from .factors import Factors, Key, Role

UploadType = Literal["float32", "bfloat16", "int8"]
"""Of the numbers that clients send (``engine.upload``)."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Train ``roles`` for ``steps`` local steps, then go to the next phase."""

    roles: frozenset[Role]
    steps: int = 1


@dataclass(frozen=True)
class Turn:
    """Before a client sends a pair, it writes it in the basis nearest to that of the round's start.

    Attributes:
        towards: which factor of the start decides, A or B.
        share: how far it turns; 1 is all the way.

    Raises:
        ValueError: if it is neither factor, or the share is not above 0 and at most 1.
    """

    towards: Role
    share: float = 1.0

    def __post_init__(self) -> None:
        if self.towards not in (Role.A, Role.B):
            raise ValueError("turn: pairs are turned towards A or B")
        if not 0.0 < self.share <= 1.0:
            raise ValueError(f"rotation_lambda: must be above 0 and at most 1, not {self.share}")


@dataclass(frozen=True, kw_only=True)
class RoundPlan:
    """Orders for one round.

    Attributes:
        phases: cycled over the local steps of every client.
        share: roles that are uploaded and combined; what is trained besides stays with its client.
        fold: after the round, every pair is added to the frozen base and a fresh one begins.
        fixed: tensors that stay as they are, whatever their role.
        upload: type of the numbers that clients send.
        own_start: where A is as drawn, every client begins at a draw of its own.
        turn: how clients turn their pairs before they send them; None if they do not.
    """

    phases: tuple[Phase, ...]
    share: frozenset[Role]
    fold: bool = False
    fixed: frozenset[Key] = frozenset()
    upload: UploadType = "float32"
    own_start: bool = False
    turn: Turn | None = None

    def trained(self) -> frozenset[Role]:
        """Every role that some phase moves."""
        return frozenset().union(*(phase.roles for phase in self.phases))

    @property
    def steps_of_all(self) -> int:
        """After so many steps every phase has had its turn."""
        return sum(phase.steps for phase in self.phases)

    def by_step(self, steps: int) -> Iterator[frozenset[Role]]:
        """The roles that each of so many local steps trains: the phases, over and over."""
        return islice(chain.from_iterable([p.roles] * p.steps for p in cycle(self.phases)), steps)

    def shared(self, factors: Factors) -> Factors:
        """Those of all ``factors`` that are uploaded."""
        return factors.only(self.share).without(self.fixed)

    def only_trained(self, factors: Factors) -> Factors:
        """Those of all ``factors`` that some phase moves."""
        return factors.only(self.trained()).without(self.fixed)

    def personal(self, factors: Factors) -> Factors:
        """Those that a client trains and keeps to itself."""
        return factors.only(self.trained() - self.share).without(self.fixed)

    def outline(self) -> dict[str, Any]:
        """All of it in a fixed order and plain types, for messages and fingerprints."""
        fewer_bits = {} if self.upload == "float32" else {"upload": self.upload}
        own = {"own_start": True} if self.own_start else {}
        turn = {"turn": [str(self.turn.towards), self.turn.share]} if self.turn else {}
        return {
            "phases": [[sorted(map(str, phase.roles)), phase.steps] for phase in self.phases],
            "share": sorted(map(str, self.share)),
            "fold": self.fold,
            "fixed": sorted(self.fixed),
            **fewer_bits,
            **own,
            **turn,
        }


def plan_of(outline: Mapping[str, Any]) -> RoundPlan:
    """The plan of an outline.

    Raises:
        KeyError: if a part is missing.
        ValueError: if a part is none of a plan.
    """
    upload = outline.get("upload", "float32")
    turn = outline.get("turn")
    if upload not in get_args(UploadType):
        raise ValueError("upload is no type that numbers are sent in")
    return RoundPlan(
        phases=tuple(Phase(roles=_roles(r), steps=n) for r, n in outline["phases"]),
        share=_roles(outline["share"]),
        fold=outline["fold"],
        fixed=frozenset(map(Key.of, outline["fixed"])),
        upload=upload,
        own_start=outline.get("own_start", False) is True,
        turn=None if turn is None else Turn(Role(turn[0]), float(turn[1])),
    )


def _roles(names: Iterable[str]) -> frozenset[Role]:
    return frozenset(map(Role, names))
