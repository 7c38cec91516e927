"""What a server does between its clients' contributions and the mean that an aggregator sees.

Without central privacy it asks everyone and takes the weighted mean. A central mechanism
(``dp_fedavg``) chooses whom to ask, bounds what each client adds to the sum, and noises the sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from torch import Tensor

from silotune.core import ClientId, ClientMean, Statistics
from silotune.privacy.accounting.charges import AnyCharge

from .base import NoiseState, RoundRandomness
from .noise import NoNoise
from .secure_rng import Randomness


class RoundStart(NamedTuple):
    """What the server held when it asked its clients.

    Attributes:
        round: 0-based.
        shared: what a client that changes nothing would send, with weight 1: theta_t, and
            B_t A_t of every site if products are pooled.
        memory: of the state.
    """

    round: int
    shared: Statistics
    memory: Mapping[str, Tensor]


class Release(NamedTuple):
    """What the server goes on with; under central privacy everything else stays secret.

    Attributes:
        mean: what the aggregator sees.
        memory: of the next state.
    """

    mean: ClientMean
    memory: Mapping[str, Tensor]


class ServerMechanism(Protocol):
    """Whom the server asks, and how it forms their mean. Its fields are public."""

    @property
    def private(self) -> bool:
        """Whether the mean hides every single client. Whom it asked is then secret."""
        ...

    @property
    def sampling_rate(self) -> float:
        """The share of its clients that it expects to ask in a round."""
        ...

    def draws(self, round: int, past: NoiseState | None) -> RoundRandomness:
        """The draws of one round.

        Args:
            round: 0-based.
            past: what the server remembers of this run; needed where rounds hang together.
        """
        ...

    def cohort(self, clients: Sequence[ClientId], draws: RoundRandomness) -> Sequence[ClientId]:
        """Whom to ask in this round, in the order of ``clients``; may be nobody.

        Args:
            clients: all there are: the same ones in the same order in every round.
            draws: of the round.
        """
        ...

    def bound(self, contribution: Statistics, before: RoundStart) -> Statistics:
        """One client's part of the sum, made from what it sent."""
        ...

    def mean(self, total: Statistics | None, before: RoundStart, draws: RoundRandomness) -> Release:
        """The mean from the sum of bounded parts; ``total`` is None if there are none."""
        ...

    def clipping_norm(self, memory: Mapping[str, Tensor]) -> float:
        """S, by which one client can move the sum; infinity if nothing bounds it."""
        ...

    def charge(self) -> AnyCharge | None:
        """The price of one round for every client; None if nothing is claimed."""
        ...


@dataclass(frozen=True)
class FullParticipation:
    """No central privacy: all clients, weighted as they are."""

    @property
    def private(self) -> bool:
        """Never."""
        return False

    @property
    def sampling_rate(self) -> float:
        """All are asked."""
        return 1.0

    def draws(self, round: int, past: NoiseState | None) -> RoundRandomness:
        """Nothing is drawn."""
        return RoundRandomness(Randomness.insecure(round), NoNoise(), 0)

    def cohort(self, clients: Sequence[ClientId], draws: RoundRandomness) -> Sequence[ClientId]:
        """All."""
        return clients

    def bound(self, contribution: Statistics, before: RoundStart) -> Statistics:
        """As it came."""
        return contribution

    def mean(self, total: Statistics | None, before: RoundStart, draws: RoundRandomness) -> Release:
        """The sum over the weight of those who took part."""
        assert total is not None, "nobody took part"
        return Release(total.mean(), before.memory)

    def clipping_norm(self, memory: Mapping[str, Tensor]) -> float:
        """No bound."""
        return float("inf")

    def charge(self) -> None:
        """Nothing is claimed."""
        return
