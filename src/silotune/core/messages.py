"""Messages: what the server asks of a client, and what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NewType

from torch import Tensor

from silotune.linalg import Matrix

from .factors import Factors, Key
from .metrics import Meters
from .round_plan import RoundPlan

ClientId = NewType("ClientId", str)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What a round changed, so that who took part in it need not be sent the rest again.

    Attributes:
        keys: tensors that are not what they were.
        folded: what was added to the base, (out, in) by site, unscaled.
        holders: clients that know the state before the change.
    """

    keys: frozenset[Key] = frozenset()
    folded: Mapping[str, Matrix] = field(default_factory=dict)
    holders: frozenset[ClientId] = frozenset()


@dataclass(frozen=True, kw_only=True)
class GlobalState:
    """What all clients agree on. A value: a run is a sequence of these.

    Attributes:
        round: rounds done so far.
        factors: every adapter and head tensor, float32, unscaled.
        folded: what has been added to the frozen base so far, (out, in) by site, unscaled.
        drawn: tensors that still are what a seed draws, and the seed; they need not travel.
        latest: what the last round changed.
        memory: the server's own numbers by name, such as a clipping norm; they stay with it.
    """

    round: int
    factors: Factors
    folded: Mapping[str, Matrix] = field(default_factory=dict)
    drawn: Mapping[Key, int] = field(default_factory=dict)
    latest: Change = field(default_factory=Change)
    memory: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Seeded:
    """Tensors that travel as a seed and are checked by their SHA-256 on arrival."""

    seed: int
    keys: tuple[Key, ...]
    digest: str


@dataclass(frozen=True, kw_only=True)
class ClientTask:
    """Orders for one client in one round.

    Attributes:
        run: identifies the run; a retry carries the same.
        round: 0-based.
        factors: the tensors that are sent; the others are drawn, as ``seeded`` says.
        folded: what has been added to the frozen base in all rounds before.
        change: that part of factors and fold which is new since the round before.
        rank: of this client's pairs, where it differs between clients.
        seed: for data order and adapter dropout; never for privacy noise or sampling coins.
        learning_rates: of every step, by the schedule over the run.
        remembers_since: the first round of which the local optimiser's memory still counts; None
            where it begins afresh in every round.
    """

    run: str
    round: int
    client: ClientId
    factors: Factors
    folded: Mapping[str, Matrix] = field(default_factory=dict)
    change: Change = field(default_factory=Change)
    rank: int | None = None
    seeded: tuple[Seeded, ...]
    plan: RoundPlan
    steps: int
    learning_rates: tuple[float, ...]
    seed: int
    remembers_since: int | None = None


@dataclass(frozen=True, kw_only=True)
class ClientUpdate:
    """What a client gives back. ``metrics`` stay empty in a private run.

    Attributes:
        sealed: the contribution as the channel sealed it.
        refusal: why the client did not take part, in words; ``sealed`` is empty then.
        resent: these are the bytes of an earlier attempt at this round; nothing was trained.
    """

    run: str
    round: int
    client: ClientId
    sealed: bytes
    meters: Meters = field(default_factory=dict)
    refusal: str = ""
    resent: bool = False
