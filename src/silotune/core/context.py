"""Context: what the adapted layers of one model tell each other during a forward pass.

Layers that read one another (shortcuts), that must know which positions are padding (routers), or
that add to the loss, meet here. Everything is forgotten when the next forward pass begins.

Shapes: n examples, T positions.
"""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor


class Context:
    """One forward pass of one model.

    Attributes:
        mask: (n, T), 1 where there is something and 0 where there is padding; None if the model's
            inputs have no such thing.
        notes: what layers leave for those that come after them, by keys of their own.
        penalties: (n,) each, what layers add to every example's loss.
    """

    def __init__(self) -> None:
        self.mask: Tensor | None = None
        self.notes: dict[Hashable, Tensor] = {}
        self.penalties: list[Tensor] = []

    def begin(self, mask: Tensor | None) -> None:
        """A new forward pass: nothing of the last one is left."""
        self.mask, self.notes, self.penalties = mask, {}, []

    def penalty(self) -> Tensor | float:
        """The sum (n,) of what layers add to the losses; 0 if none does."""
        return torch.stack(self.penalties).sum(dim=0) if self.penalties else 0.0
