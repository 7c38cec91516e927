"""Server optimisers: the change that a rule decides is a gradient, and the server takes the step.

With x the shared tensors and Delta = (what the inner rule makes of them) - x, a step keeps a few
moments of Delta per tensor in the server's memory and moves x by what it makes of them (Reddi et
al. 2021, arXiv 2003.00295; no bias correction, as there). Everything is elementwise, and
post-processing: privacy noise passes as through the inner rule, and moments average it over rounds.
Moments live in the basis of the factors, so a rule that changes it is refused. These
moments are carried from round to round, whatever those of local optimisers are.

A residual goes along as the inner rule computed it: it is what clients disagree on, and nothing
that the server's step accelerates. So a rule stays exact only under a full step without momentum;
the aggregation error tells how far another step went elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from silotune.core import ClientMean, Factors, GlobalState, Key

from .base import Aggregator, Combined, own_type

Slots = dict[str, Tensor]  # moments of one tensor, by their letter in the paper


class ServerStep(Protocol):
    """How the server moves one tensor."""

    def start(self, like: Tensor) -> Slots:
        """Moments before the first step."""
        ...

    def take(self, delta: Tensor, slots: Slots) -> tuple[Tensor, Slots]:
        """The step, and the moments from now on."""
        ...


@dataclass(frozen=True, kw_only=True)
class ServerOptimizer(Aggregator):
    """x' = x + step(Delta), R as the inner rule has it.

    Attributes:
        inner: the rule whose change is the gradient.
        step: what is made of it.

    Raises:
        ValueError: if the inner rule changes the basis, or is a server optimiser itself.
    """

    inner: Aggregator
    step: ServerStep

    def __post_init__(self) -> None:
        if isinstance(self.inner, ServerOptimizer):
            raise ValueError("a server optimiser takes the steps of a rule, not of another one")
        if not self.inner.keeps_basis:
            raise ValueError(
                f"a server optimiser remembers moments of A and B; {type(self.inner).__name__} "
                "writes them in a new basis every round, where those mean nothing"
            )

    @property
    def needs_product(self) -> bool:
        """As the inner rule."""
        return self.inner.needs_product

    @property
    def mixes_ranks(self) -> bool:
        """As the inner rule."""
        return self.inner.mixes_ranks

    @property
    def keeps_basis(self) -> bool:
        """As the inner rule."""
        return self.inner.keeps_basis

    def turns(self, round: int) -> bool:
        """As the inner rule."""
        return self.inner.turns(round)

    @property
    def leaves_base(self) -> bool:
        """As the inner rule."""
        return self.inner.leaves_base

    @property
    def needs_b_alone(self) -> bool:
        """As the inner rule."""
        return self.inner.needs_b_alone

    @property
    def rule(self) -> Aggregator:
        """The inner rule."""
        return self.inner

    def combine(self, previous: GlobalState, mean: ClientMean) -> Combined:
        """The inner rule's decision, with the server's steps in place of its factors."""
        target = self.inner.combine(previous, mean)
        moved: dict[Key, Tensor] = {}
        memory = dict(target.memory)
        for key, tensor in target.factors.items():
            before = previous.factors[key].double()
            slots = {
                slot: previous.memory.get(self._name(slot, key), first)
                for slot, first in self.step.start(before).items()
            }
            step, slots = self.step.take(tensor.double() - before, slots)
            moved[key] = before + step
            memory |= {self._name(slot, key): moment for slot, moment in slots.items()}
        return replace(target, factors=own_type(Factors(moved), previous), memory=memory)

    def _name(self, slot: str, key: Key) -> str:
        """In the server's memory."""
        return f"{type(self.step).__name__} {slot} {key}"


@dataclass(frozen=True, kw_only=True)
class ServerMomentum:
    """m' = momentum m + Delta, x' = x + learning_rate m' (FedAvgM, arXiv 1909.06335).

    At the rate 1 without momentum it is the inner rule itself.

    Raises:
        ValueError: if a number is out of range.
    """

    learning_rate: float = 1.0
    momentum: float = 0.9

    def __post_init__(self) -> None:
        _check_positive(learning_rate=self.learning_rate)
        _check_decay(momentum=self.momentum)

    def start(self, like: Tensor) -> Slots:
        """At m = 0."""
        return {"m": torch.zeros_like(like)}

    def take(self, delta: Tensor, slots: Slots) -> tuple[Tensor, Slots]:
        """All that is left of former changes, and this one."""
        m = self.momentum * slots["m"] + delta
        return self.learning_rate * m, {"m": m}


@dataclass(frozen=True, kw_only=True)
class ServerAdam:
    """x' = x + learning_rate m' / (sqrt(v') + tau) (FedAdam, arXiv 2003.00295).

    m' = beta1 m + (1 - beta1) Delta, v' = beta2 v + (1 - beta2) Delta^2; at first m = 0, v = tau^2.

    Attributes:
        learning_rate: about the size of every number's step.
        beta1: what is left of m after a round.
        beta2: what is left of v after a round.
        tau: changes well below it are not blown up.

    Raises:
        ValueError: if a number is out of range.
    """

    learning_rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        _check_positive(learning_rate=self.learning_rate, tau=self.tau)
        _check_decay(beta1=self.beta1, beta2=self.beta2)

    def start(self, like: Tensor) -> Slots:
        """At m = 0, v = tau^2."""
        return _adaptive_start(self.tau, like)

    def take(self, delta: Tensor, slots: Slots) -> tuple[Tensor, Slots]:
        """The mean change in units of its usual size."""
        v = self.beta2 * slots["v"] + (1.0 - self.beta2) * delta**2
        return _adaptive_step(self, delta, slots["m"], v)


@dataclass(frozen=True, kw_only=True)
class ServerYogi:
    """FedAdam with v' = v - (1 - beta2) Delta^2 sign(v - Delta^2) (FedYogi, arXiv 2003.00295).

    v moves by no more than Delta^2 tells, so a quiet round does not make the next one leap.

    Attributes:
        learning_rate: about the size of every number's step.
        beta1: what is left of m after a round.
        beta2: 1 - beta2 of Delta^2 moves v.
        tau: changes well below it are not blown up.

    Raises:
        ValueError: if a number is out of range.
    """

    learning_rate: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        _check_positive(learning_rate=self.learning_rate, tau=self.tau)
        _check_decay(beta1=self.beta1, beta2=self.beta2)

    def start(self, like: Tensor) -> Slots:
        """At m = 0, v = tau^2."""
        return _adaptive_start(self.tau, like)

    def take(self, delta: Tensor, slots: Slots) -> tuple[Tensor, Slots]:
        """The mean change in units of its usual size."""
        v, squared = slots["v"], delta**2
        v = v - (1.0 - self.beta2) * squared * (v - squared).sign()
        return _adaptive_step(self, delta, slots["m"], v)


def _adaptive_start(tau: float, like: Tensor) -> Slots:
    return {"m": torch.zeros_like(like), "v": torch.full_like(like, tau**2)}


def _adaptive_step(
    rates: ServerAdam | ServerYogi, delta: Tensor, m: Tensor, v: Tensor
) -> tuple[Tensor, Slots]:
    """The step that both take once they have their new v."""
    m = rates.beta1 * m + (1.0 - rates.beta1) * delta
    return rates.learning_rate * m / (v.sqrt() + rates.tau), {"m": m, "v": v}


def _check_positive(**numbers: float) -> None:
    for name, number in numbers.items():
        if number <= 0:
            raise ValueError(f"{name}: must be positive, not {number}")


def _check_decay(**numbers: float) -> None:
    for name, number in numbers.items():
        if not 0 <= number < 1:
            raise ValueError(f"{name}: must be in [0, 1), not {number}")
