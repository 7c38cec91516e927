"""A method at work: a point on four axes. Combinations that would be wrong are refused here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from torch import nn

from silotune.adapters import Adapter
from silotune.adapters.base import pair_scale
from silotune.aggregation import Aggregator, Mean, ServerOptimizer, ServerStep
from silotune.core import Role, RoundPlan, Site
from silotune.core.protocols import check_satisfies
from silotune.optim import FedProxConfig, OptimizerConfig
from silotune.schedules import Schedule

PAIR = frozenset({Role.A, Role.B})

ANY_SITE = Site("", nn.Identity(), in_features=1, out_features=2)
"""Stands for all, where it is asked what an adapter freezes."""


class IncompatibleMethodError(ValueError):
    """A combination that would run and be wrong. Raised when the axes are put together."""


@dataclass(frozen=True, kw_only=True)
class Axes:
    """What a method is to the engine: adapter x schedule x optimiser x aggregator.

    Attributes:
        schedule: what moves, is shared and is folded, in which round.
        optimizer: how a client moves it.
        adapter: the parametrisation; None when only the head is trained.
        aggregator: how the server combines what is shared.

    Raises:
        IncompatibleMethodError: with the reason.
        ValueError: if an axis lacks a member of its protocol.
    """

    schedule: Schedule
    optimizer: OptimizerConfig
    adapter: Adapter | None
    aggregator: Aggregator = field(default_factory=Mean)

    def __post_init__(self) -> None:
        check_satisfies(self.schedule, Schedule, "schedule")
        check_satisfies(self.optimizer, OptimizerConfig, "optimizer")
        check_satisfies(self.aggregator, Aggregator, "aggregator")
        if self.adapter is not None:
            check_satisfies(self.adapter, Adapter, "adapter")
        for plan in self.schedule.plans():
            self._check_plan(plan)
        if self.adapter is None and self.trained() - {Role.HEAD}:
            raise IncompatibleMethodError(
                "the plan trains adapter factors, but there is no adapter"
            )
        self._check_pairs()
        self._check_rule()

    def trained(self) -> frozenset[Role]:
        """Every role that some round moves."""
        return frozenset().union(*(plan.trained() for plan in self.schedule.plans()))

    @property
    def turning(self) -> bool:
        """Whether pairs begin afresh, or are written in another basis, in some round."""
        return any(plan.fold for plan in self.schedule.plans()) or not self.aggregator.keeps_basis

    def gain(self, rank: int | None) -> float:
        """What a client multiplies its pair by besides the adapter's scale.

        Args:
            rank: of its pairs, where it differs between clients.
        """
        if rank is None or self.adapter is None or not self.aggregator.scales_by_rank:
            return 1.0
        own = pair_scale(self.adapter.alpha, rank, self.adapter.rslora)
        return own / self.adapter.scale

    def remembers_since(self, round: int) -> int:
        """The first round of which a local optimiser's memory still counts in ``round``.

        Pairs that begin afresh make it forget everything, as a new link of a chain does in its
        paper; another basis of A and B does, unless its memory means the same in any.
        """
        never = not any(plan.fold for plan in self.schedule.plans())
        if never and (self.optimizer.basis_free or self.aggregator.keeps_basis):
            return 0
        return next((r + 1 for r in reversed(range(round)) if self._is_forgotten_after(r)), 0)

    def link_of(self, round: int, rounds: int) -> range:
        """The rounds of the link that a round is in, from one fold to the next, of so many."""
        if not any(plan.fold for plan in self.schedule.plans()):
            return range(rounds)
        first = next((r + 1 for r in reversed(range(round)) if self.schedule.plan(r).fold), 0)
        last = next((r for r in range(round, rounds) if self.schedule.plan(r).fold), rounds - 1)
        return range(first, last + 1)

    def _is_forgotten_after(self, round: int) -> bool:
        turned = self.aggregator.turns(round) and not self.optimizer.basis_free
        return turned or self.schedule.plan(round).fold

    def _check_pairs(self) -> None:
        """That every phase trains of a pair what the optimiser needs."""
        moves = self.optimizer.moves_pairs
        never = self.adapter.frozen(ANY_SITE) if self.adapter else frozenset[Role]()
        for plan in self.schedule.plans():
            if not all(moves.allow(phase.roles - never) for phase in plan.phases):
                raise IncompatibleMethodError(f"a pair optimiser needs {moves} in every phase")

    def _check_rule(self) -> None:
        """That the aggregator finds what it combines."""
        rule = self.aggregator.rule
        name = type(rule).__name__
        alike = all(plan.share >= PAIR for plan in self.schedule.plans())
        if rule.needs_product and not alike:
            raise IncompatibleMethodError(
                f"{name} combines products B A, so clients must share both factors in the same "
                "round; where one is common, their mean is exact already"
            )
        if rule.needs_b_alone and self.trained() & PAIR != {Role.B}:
            raise IncompatibleMethodError(
                f"{name} turns pairs of which clients train B and never A"
            )
        of_pairs = rule.needs_product or not rule.keeps_basis
        if of_pairs and not (self.adapter and self.adapter.whole_pair):
            raise IncompatibleMethodError(
                f"{name} takes B A for all that is learned at its layer, and here it is not"
            )

    def _check_plan(self, plan: RoundPlan) -> None:
        if not plan.share:
            raise IncompatibleMethodError(
                "a plan must share something, or the federation learns nothing"
            )
        if not plan.share <= plan.trained():
            frozen = _words(plan.share - plan.trained())
            raise IncompatibleMethodError(
                f"sharing what no phase trains only costs traffic: {frozen}"
            )
        if plan.fold and (self.adapter is None or not self.adapter.seeded):
            raise IncompatibleMethodError(
                "a pair that begins afresh every so often is drawn from a seed: set "
                "init_lora_weights to kaiming or orthonormal"
            )
        if plan.turn and not (plan.share >= PAIR and self.adapter and self.adapter.whole_pair):
            raise IncompatibleMethodError(
                "only a pair that is shared whole, and is all that is learned at its layer, may be "
                "turned before it is sent"
            )
        if plan.fold and plan.trained() - plan.share:
            raise IncompatibleMethodError(
                "what a client keeps to itself cannot be folded into the base"
            )
        if plan.fold and Role.D in plan.trained():
            raise IncompatibleMethodError(
                "a whole matrix is never full: there is nothing to begin afresh"
            )
        if plan.fold and not (self.adapter and self.adapter.foldable):
            raise IncompatibleMethodError(
                "only a pair that serves its own layer alone can be folded into that layer's base"
            )


def with_rule(axes: Axes, rule: Aggregator) -> Axes:
    """With another method's rule in place of the plain mean.

    Raises:
        IncompatibleMethodError: if there is a rule already, or the other one would be wrong there.
    """
    if not axes.aggregator.replaceable:
        raise IncompatibleMethodError(
            "aggregation: this method combines in a way of its own; leave it out"
        )
    try:
        return replace(axes, aggregator=rule)
    except IncompatibleMethodError as error:
        raise IncompatibleMethodError(f"aggregation: {error}; leave it out") from error


def with_proximal(axes: Axes, mu: float) -> Axes:
    """With FedProx's pull (arXiv 1812.06127) in every local step; 0 is none."""
    return replace(axes, optimizer=FedProxConfig(axes.optimizer, mu)) if mu else axes


def with_server(axes: Axes, step: ServerStep) -> Axes:
    """With a server's optimiser around the rule.

    Raises:
        IncompatibleMethodError: if the basis that the optimiser's moments live in changes.
    """
    folds = any(plan.fold for plan in axes.schedule.plans())
    if folds or not axes.aggregator.keeps_basis:
        raise IncompatibleMethodError(
            "server_optimizer: the server's moments live in the basis of A and B, and this "
            "method changes it; use none"
        )
    return replace(axes, aggregator=ServerOptimizer(inner=axes.aggregator, step=step))


def completed(axes: Axes, proximal_mu: float, server: ServerStep | None) -> Axes:
    """With the optimisers that go around any method, as far as they are asked for.

    Raises:
        IncompatibleMethodError: if the method has no room for them.
    """
    axes = with_proximal(axes, proximal_mu)
    return with_server(axes, server) if server else axes


def refuse_by_step(axes: Axes, unit: str) -> None:
    """Refuse a method whose changes have no mean by the step (FedNova, ``engine.normalized``).

    Args:
        axes: the method.
        unit: of privacy: none, example or client.

    Raises:
        IncompatibleMethodError: with the reason.
    """
    if unit == "client":
        raise IncompatibleMethodError(
            "normalize_steps: how far the clients of a round go on average would tell who they "
            "are, which client-level privacy hides; set it to false"
        )
    if not axes.aggregator.rule.replaceable:
        raise IncompatibleMethodError(
            "normalize_steps: averages changes of single tensors by the step, and this method "
            "combines pairs in a way of its own; set it to false"
        )
    if any(plan.turn for plan in axes.schedule.plans()):
        raise IncompatibleMethodError(
            "normalize_steps: a pair that is turned before it is sent has not gone so far by its "
            "steps; set it to false"
        )
    if any(len(plan.phases) > 1 for plan in axes.schedule.plans()):
        raise IncompatibleMethodError(
            "normalize_steps: takes every step to train the same tensors, and this method trains "
            "one thing after another; set it to false"
        )


def refuse_averaged(axes: Axes) -> None:
    """Refuse a method whose states have no mean that is a model (``engine.tail_average``).

    Args:
        axes: the method.

    Raises:
        IncompatibleMethodError: with the reason.
    """
    if any(plan.trained() - plan.share for plan in axes.schedule.plans()):
        raise IncompatibleMethodError(
            "tail_average: every client of this method has a model of its own, and the server "
            "knows a part of it alone; set it to 0"
        )
    adapter, moving = axes.adapter, axes.trained() - {Role.HEAD}
    if adapter is None or not (moving := moving - adapter.frozen(ANY_SITE)):
        return
    if not adapter.multilinear:
        raise IncompatibleMethodError(
            "tail_average: what this method's layers compute is not linear in any one of its "
            "tensors, so that the mean of these is not the mean of any models; set it to 0"
        )
    if len(moving) > 1 and not (moving <= PAIR and (adapter.whole_pair or adapter.foldable)):
        raise IncompatibleMethodError(
            f"tail_average: {_words(moving)} move together, and their product has no place of its "
            "own in the base; set it to 0"
        )


def refuse_unproved(axes: Axes, unit: str, *, correlated: bool = False) -> None:
    """Refuse a method for which a guarantee is not proved, or would be worth nothing.

    Args:
        axes: the method.
        unit: of privacy: none, example or client.
        correlated: whether noise hangs together over steps (example) or rounds (client).

    Raises:
        IncompatibleMethodError: with the reason.
    """
    plans = axes.schedule.plans()
    if unit == "example" and Role.D in axes.trained():
        raise IncompatibleMethodError(
            "direct averaging of dense deltas under example-level DP is refused: noise would enter "
            "every number of every layer; use fedftg-seeded"
        )
    if unit == "example" and axes.adapter and not axes.adapter.per_example_safe:
        raise IncompatibleMethodError(axes.adapter.unsafe_because)
    if unit == "client" and axes.aggregator.rule.weighs_by_norm:
        raise IncompatibleMethodError(
            "norm_weights: the norm of a client's update is its secret, and nothing bounds what "
            "one client then changes of the mean; set it to false"
        )
    if unit == "client" and any(plan.trained() - plan.share for plan in plans):
        raise IncompatibleMethodError(
            "client-level privacy covers what is shared, and this method's models are made of what "
            "clients keep as well: whoever sees one sees its client; use unit: example"
        )
    steps = {phase.roles for plan in plans for phase in plan.phases}
    rounds = {plan.share for plan in plans}
    moving = not axes.schedule.steady or len(steps if unit == "example" else rounds) > 1
    if correlated and (moving or axes.turning):
        raise IncompatibleMethodError(
            "noise: correlated takes back noise of earlier steps from the same tensors, "
            "and this method trains others in between, or writes them in a new basis; use gaussian"
        )


def _words(roles: Iterable[Role]) -> str:
    return ", ".join(sorted(roles))
