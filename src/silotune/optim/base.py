"""What an optimiser is: a frozen choice that builds a fresh torch optimiser for one round."""

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import nn

from silotune.core import Key


class Optimizer(Protocol):
    """How a client moves its tensors. Its state begins afresh every round."""

    @property
    def learning_rate(self) -> float:
        """The rate of round 0; the run's schedule may lower it."""
        ...

    def build(
        self, tensors: Mapping[Key, nn.Parameter], learning_rate: float
    ) -> torch.optim.Optimizer:
        """A torch optimiser over ``tensors``: all of the model's, those that never move as well.

        A tensor that is frozen, in this step or in all, has no gradient then and must stay.
        """
        ...
