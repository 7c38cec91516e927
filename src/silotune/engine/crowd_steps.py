"""Steps of a crowd: what each client's mechanism and optimiser make of its clipped sums.

Noise, bound and divisor are every client's own. An optimiser that moves each number by itself, and
carries nothing from round to round, moves the tensors of all clients as one; any other has one of
its kind for each client.

Shapes: K clients.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from silotune.core import Joinable, Key
from silotune.optim.memory import Memory, remembered, remind
from silotune.privacy import ClientMechanism, ExampleLevel, RoundRandomness
from silotune.privacy.mechanisms.clipping import Accumulated

from .local_training import Training, rate_setter
from .participants import LocalTrainer


@dataclass(frozen=True, eq=False)
class Member:
    """One client of a crowd.

    Attributes:
        training: what it is to do.
        records: to learn from.
        draws: its coins and noise.
        batches: what its coins draw, a step each.
    """

    training: Training
    records: Joinable
    draws: RoundRandomness
    batches: Iterator[Sequence[int]]

    @property
    def mechanism(self) -> ClientMechanism:
        """What hides its records."""
        return self.training.client.privacy


class Clipped(NamedTuple):
    """What one step sees of all records.

    Attributes:
        sums: of clipped gradients, (K, *shape) each.
        examples: how many records each client drew.
        dropped: how many of them were left out, (K,).
    """

    sums: Mapping[Key, Tensor]
    examples: Sequence[int]
    dropped: Tensor


class Steps(Protocol):
    """How a crowd's tensors move."""

    def take(self, active: Collection[Key], rate: float, clipped: Clipped) -> None:
        """One step of every client."""
        ...

    def memory(self, place: int) -> Memory:
        """What a client's optimiser carries to the next round; empty for nothing."""
        ...


def steps_of(members: Sequence[Member], own: Mapping[Key, Tensor], trainer: LocalTrainer) -> Steps:
    """Those of a crowd.

    Args:
        members: of one plan and rates.
        own: the tensors that move or differ, (K, *shape) each; they are moved where they lie.
        trainer: whose optimiser it is.
    """
    carried = any(m.training.memory or _carries(m) for m in members)
    claims = vars(type(trainer.optimizer)).get("by_number", False)  # its own, and no parent's
    stacked = claims and not carried
    return AsOne(members, own, trainer) if stacked else OneByOne(members, own, trainer)


class AsOne:
    """One optimiser over the stacked tensors."""

    def __init__(
        self, members: Sequence[Member], own: Mapping[Key, Tensor], trainer: LocalTrainer
    ) -> None:
        first = members[0].training.task.learning_rates[0]
        self._members = members
        self._tensors = {k: nn.Parameter(t) for k, t in own.items()}
        self._optimizer = trainer.optimizer.build(
            {k: self._tensors.get(k, p) for k, p in trainer.adapted.tensors.items()}, first
        )
        self._set_rate = rate_setter(self._optimizer, first)

    def take(self, active: Collection[Key], rate: float, clipped: Clipped) -> None:
        """One step of every client."""
        self._set_rate(rate)
        self._optimizer.zero_grad()
        trained = {key: self._tensors[key] for key in active}
        mechanisms = [m.mechanism for m in self._members]
        hidden = [m for m in mechanisms if isinstance(m, ExampleLevel)]
        if len(hidden) == len(mechanisms):
            draws = [m.draws for m in self._members]
            ExampleLevel.noised_together(hidden, trained, clipped.sums, draws)
        else:
            each = [_view(trained, k) for k in range(len(mechanisms))]
            for k, (member, tensors) in enumerate(zip(self._members, each, strict=True)):
                member.mechanism.noised(tensors, _of(clipped, k), member.draws)
            for key, stacked in trained.items():
                stacked.grad = torch.stack([_grad(tensors[key]) for tensors in each])
        self._optimizer.step()

    def memory(self, place: int) -> Memory:
        """Nothing."""
        return {}


class OneByOne:
    """An optimiser for each client."""

    def __init__(
        self, members: Sequence[Member], own: Mapping[Key, Tensor], trainer: LocalTrainer
    ) -> None:
        shared, first = trainer.adapted.tensors, members[0].training.task.learning_rates[0]
        self._members = members
        self._tensors = [{**shared, **_view(own, k)} for k in range(len(members))]
        self._optimizers = [trainer.optimizer.build(own, first) for own in self._tensors]
        self._set_rates = [rate_setter(optimizer, first) for optimizer in self._optimizers]
        for member, optimizer, tensors in self._each():
            remind(optimizer, tensors, member.training.memory)

    def take(self, active: Collection[Key], rate: float, clipped: Clipped) -> None:
        """One step of every client, one after the other."""
        for set_rate in self._set_rates:
            set_rate(rate)
        for k, (member, optimizer, tensors) in enumerate(self._each()):
            optimizer.zero_grad()
            trained = {key: tensors[key] for key in active}
            member.mechanism.noised(trained, _of(clipped, k), member.draws)
            optimizer.step()

    def memory(self, place: int) -> Memory:
        """What its optimiser knows, if it is carried."""
        member, optimizer, tensors = list(self._each())[place]
        return remembered(optimizer, tensors) if _carries(member) else {}

    def _each(
        self,
    ) -> Iterator[tuple[Member, torch.optim.Optimizer, Mapping[Key, nn.Parameter]]]:
        return zip(self._members, self._optimizers, self._tensors, strict=True)


def _carries(member: Member) -> bool:
    return member.training.task.remembers_since is not None


def _view(stacked: Mapping[Key, Tensor], place: int) -> dict[Key, nn.Parameter]:
    """One client's own, in the memory of the crowd's."""
    return {key: nn.Parameter(t.detach()[place]) for key, t in stacked.items()}


def _of(clipped: Clipped, place: int) -> Accumulated:
    """One client's part."""
    sums = {key: t[place] for key, t in clipped.sums.items()}
    return Accumulated(sums, clipped.examples[place], int(clipped.dropped[place]))


def _grad(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "a mechanism writes the gradient of all that is trained"
    return parameter.grad
