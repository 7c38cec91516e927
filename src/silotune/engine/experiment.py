"""What decides a run, but for the records and the place where it runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from silotune.core import ClientId, Key
from silotune.privacy import CorrelatedCharge
from silotune.privacy.central import Central, Everyone
from silotune.recipe import IncompatibleAxes, Recipe


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """All that decides a run, but for the records and the place where it runs.

    Attributes:
        run: identifies the run in messages and ledgers.
        recipe: the method.
        weights: public weight of each client (declared sizes, or all equal); None: the noisy
            number of records that it releases.
        rounds: number of rounds.
        local_steps: steps of each client in a round.
        linear_decay: the learning rate falls linearly over the rounds, to zero after the last.
        seed: of the initial tensors, data order and adapter dropout.
        seeded: tensors that every client draws for itself from ``seed``.
        quorum: fewest clients a round may do with; not looked at under central privacy, where
            how many there were is secret.
        private: whether a mechanism hides the records, at the clients or at the server.
        central: whom the server asks, and how it forms their mean.

    Raises:
        IncompatibleAxes: if weights differ under central privacy, or correlated noise would be
            added to other tensors in one round than in another.
    """

    run: str
    recipe: Recipe
    weights: Mapping[ClientId, float | None]
    rounds: int
    local_steps: int
    linear_decay: bool
    seed: int
    seeded: frozenset[Key]
    quorum: int
    private: bool
    central: Central = field(default_factory=Everyone)

    def __post_init__(self) -> None:
        if self.central.private:
            self._check_alike()
        if isinstance(self.central.charge(), CorrelatedCharge):
            self._check_steady()

    @property
    def clients(self) -> tuple[ClientId, ...]:
        """All there are, in an order that is the same for every runtime and in every round."""
        return tuple(sorted(self.weights))

    def _check_alike(self) -> None:
        if len(set(self.weights.values())) != 1 or None in self.weights.values():
            raise IncompatibleAxes(
                "client-level privacy hides all clients alike, so their weights must be equal: "
                "set train.weighting: uniform"
            )

    def _check_steady(self) -> None:
        shares = {self.recipe.schedule.plan(round).share for round in range(self.rounds)}
        if len(shares) > 1:
            raise IncompatibleAxes(
                "privacy.noise: correlated needs the same tensors to be shared in every round, "
                "which this method.name does not do; use gaussian"
            )
