"""What decides a run, but for the records and the place where it runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from silotune.core import ClientId, Factors, Key, RoundPlan, UploadType, seed_of
from silotune.methods.axes import Axes, IncompatibleMethodError, refuse_by_step, refuse_unproved
from silotune.optim.learning_rate import LearningRateSchedule
from silotune.privacy import CorrelatedCharge
from silotune.privacy.mechanisms.server import FullParticipation, ServerMechanism

from .cohorts import Cohorts
from .tail_average import TailAverage

LARGEST_UPDATE = 1e4
"""L2 norm of a change that no honest training makes in one round."""


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """All that decides a run, but for the records and the place where it runs.

    Attributes:
        run: identifies the run in messages and ledgers.
        axes: the method.
        weights: public weight of each client (declared sizes, or all equal); None: the noisy
            number of records that it releases, at most ``MOST_OF_DECLARED`` times the declared one.
        rounds: number of rounds.
        local_steps: steps of each client in a round; of all of them, or by client.
        seed: of the initial tensors, data order and adapter dropout.
        draw: all tensors that a seed decides; every client can do the same.
        sites: all adapted ones.
        fixed: tensors that never train, whatever the plan says.
        ranks: of the clients' pairs, where they differ; else empty.
        upload: type of the numbers that clients send.
        declared: the number of records that each declares, where weights are noisy; else empty.
        largest_update: an update that changes what is shared by more than this L2 norm is refused.
        quorum: fewest clients a round may do with, or all that it asks, if these are fewer; not
            looked at under central privacy, where how many there were is secret.
        private: whether a mechanism hides the records, at the clients or at the server.
        lr_schedule: how the learning rate goes over the steps of all rounds, or of a link.
        cohorts: whom rounds ask, drawn in public; all, where ``central`` draws among them.
        carried: local optimisers remember earlier rounds.
        central: whom the server asks, and how it forms their mean.
        reach: how far an optimiser goes in steps of such rates, where changes are averaged by the
            step (``normalized``); None where they are averaged as they are.
        tail: of which last states the result is the mean; None where it is the last one.

    Raises:
        IncompatibleMethodError: if weights or ranks differ under central privacy, ranks differ and
            the rule needs them equal, or correlated noise would be added to other tensors in one
            round than in another.
    """

    run: str
    axes: Axes
    weights: Mapping[ClientId, float | None]
    rounds: int
    local_steps: int | Mapping[ClientId, int]
    seed: int
    draw: Callable[[int], Factors]
    quorum: int
    private: bool
    sites: tuple[str, ...] = ()
    fixed: frozenset[Key] = frozenset()
    ranks: Mapping[ClientId, int] = field(default_factory=dict)
    upload: UploadType = "float32"
    declared: Mapping[ClientId, int] = field(default_factory=dict)
    largest_update: float = LARGEST_UPDATE
    lr_schedule: LearningRateSchedule = field(default_factory=LearningRateSchedule)
    carried: bool = False
    cohorts: Cohorts = field(default_factory=Cohorts)
    central: ServerMechanism = field(default_factory=FullParticipation)
    reach: Callable[[Sequence[float]], float] | None = None
    tail: TailAverage | None = None

    def __post_init__(self) -> None:
        if self.ranks and not self.axes.aggregator.mixes_ranks:
            raise IncompatibleMethodError(
                "ranks: this method averages A and B by themselves, and tensors of unequal "
                "shapes have no mean; use flexlora or flora, or one rank for all"
            )
        if not self.cohorts.of_all and self.central.private:
            raise IncompatibleMethodError(
                "cohorts: client-level privacy draws whom it asks in secret; leave them out"
            )
        unit = "client" if self.central.private else "example" if self.private else "none"
        if self.reach is not None:
            refuse_by_step(self.axes, unit)
        refuse_unproved(self.axes, unit)
        if self.central.private:
            self._check_alike()
        if isinstance(self.central.charge(), CorrelatedCharge):
            self._check_steady()

    @cached_property
    def clients(self) -> tuple[ClientId, ...]:
        """All there are, in an order that is the same for every runtime and in every round."""
        return tuple(sorted(self.weights))

    def cohort(self, round: int) -> tuple[ClientId, ...]:
        """Those that ``round`` asks, before ``central`` draws among them."""
        clients = self.clients
        drawn = self.cohorts.drawn(len(clients), self.seed, round)
        return tuple(clients[i] for i in drawn)

    @cached_property
    def asked_in(self) -> Mapping[ClientId, tuple[int, ...]]:
        """The rounds that ask each client."""
        rounds: dict[ClientId, list[int]] = {client: [] for client in self.clients}
        for round in range(self.rounds):
            for client in self.cohort(round):
                rounds[client].append(round)
        return {client: tuple(of_client) for client, of_client in rounds.items()}

    @cached_property
    def _courses(self) -> dict[int, str]:
        return {}

    def course(self, steps: int) -> str:
        """SHA-256 of all that rounds ask of a client that takes so many steps, whoever it is.

        Computed once, however many clients agree to it.
        """
        if steps not in self._courses:
            rounds = range(self.rounds)
            asked = {
                "plans": [self.plan(round).outline() for round in rounds],
                "rates": [self.learning_rates(round, steps) for round in rounds],
                "remembered": [self.remembers_since(round) for round in rounds],
            }
            self._courses[steps] = hashlib.sha256(json.dumps(asked).encode()).hexdigest()
        return self._courses[steps]

    @cached_property
    def plans_in_turn(self) -> tuple[tuple[int, RoundPlan], ...]:
        """The rounds whose plan differs from all before it, and these plans."""
        first = dict[str, tuple[int, RoundPlan]]()
        for round in range(self.rounds):
            plan = self.plan(round)
            first.setdefault(json.dumps(plan.outline()), (round, plan))
        return tuple(first.values())

    def plan(self, round: int) -> RoundPlan:
        """The orders for ``round``."""
        plan = self.axes.schedule.plan(round, self.sites)
        return replace(plan, fixed=plan.fixed | self.fixed, upload=self.upload)

    def steps_of(self, client: ClientId) -> int:
        """Of a client in each round."""
        steps = self.local_steps
        return steps if isinstance(steps, int) else steps[client]

    def learning_rates(self, round: int, steps: int) -> tuple[float, ...]:
        """Of the optimiser of a client that takes so many steps, in each of them in ``round``."""
        of_link = self.lr_schedule.span == "link"
        course = self.axes.link_of(round, self.rounds) if of_link else range(self.rounds)
        first, whole = (round - course.start) * steps, len(course) * steps
        factors = (self.lr_schedule.factor(first + i, whole) for i in range(steps))
        return tuple(self.axes.optimizer.lr * factor for factor in factors)

    def reach_of(self, client: ClientId, round: int) -> float:
        """How far a client's optimiser goes in ``round``; 1 where nobody asks, or it stays."""
        if self.reach is None:
            return 1.0
        return self.reach(self.learning_rates(round, self.steps_of(client))) or 1.0

    def remembers_since(self, round: int) -> int | None:
        """Of local optimisers in ``round``, as in a task."""
        return self.axes.remembers_since(round) if self.carried else None

    def client_seed(self, round: int, client: ClientId) -> int:
        """For a client's data order and dropout in ``round``."""
        return seed_of(self.seed, "client", round, client)

    def pair_seed(self, round: int) -> int:
        """Draws the pairs that begin afresh in ``round``."""
        return seed_of(self.seed, "pair", round)

    def _check_alike(self) -> None:
        if self.ranks:
            raise IncompatibleMethodError(
                "ranks: a client's change cannot be told from what its lower rank cuts off, "
                "so nothing bounds it; use one rank for all under unit: client"
            )
        if len(set(self.weights.values())) != 1 or None in self.weights.values():
            raise IncompatibleMethodError(
                "client-level privacy hides all clients alike, so their weights must be equal: "
                "set weighting: uniform"
            )

    def _check_steady(self) -> None:
        plans = [self.plan(round) for round in range(self.rounds)]
        if len({(plan.share, plan.fixed) for plan in plans}) > 1:
            raise IncompatibleMethodError(
                "noise: correlated needs the same tensors to be shared in every round, "
                "which this method does not do; use gaussian"
            )
