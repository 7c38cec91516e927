"""What an optimiser is to the engine: a frozen choice that builds a torch optimiser each round."""

from abc import abstractmethod
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Protocol

import torch
from torch import nn

from silotune.core import Key, Role


class Moves(StrEnum):
    """What of a pair B A must train in one and the same step; the value says it in words."""

    ANYTHING = "anything"
    BOTH = "A and B"
    ONE = "either A or B"
    ONLY_B = "B and not A"

    def allow(self, roles: Collection[Role]) -> bool:
        """Whether a step may train these roles, as far as A and B are concerned."""
        pair = {Role.A, Role.B} & set(roles)
        match self:
            case Moves.ANYTHING:
                return True
            case Moves.BOTH:
                return len(pair) == 2
            case Moves.ONE:
                return len(pair) == 1
            case Moves.ONLY_B:
                return pair == {Role.B}


class OptimizerConfig(Protocol):
    """How a client moves its tensors.

    One that moves each number by its own gradients alone, wherever it stands in a tensor, may claim
    ``by_number``: then one of its kind moves the stacked tensors of many clients.

    What it builds begins with nothing in its memory, ``state[parameter]``; where a run carries it
    from round to round, that of the round before is put there (``memory``).
    """

    @property
    def lr(self) -> float:
        """The rate of round 0; the run's schedule may lower it."""
        ...

    @property
    def moves_pairs(self) -> Moves:
        """What it needs of every pair in every phase; recipes without that are refused."""
        ...

    @property
    def basis_free(self) -> bool:
        """Whether its memory means the same for (A, B) and (T^-1 A, B T), whatever T."""
        return False

    @abstractmethod
    def build(self, tensors: Mapping[Key, nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """A torch optimiser over ``tensors``: all of the model's, those that never move as well.

        A tensor that is frozen, in this step or in all, has no gradient then and must stay.
        """
        ...
