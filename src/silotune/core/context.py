"""Context: what the adapted layers of one model tell each other during a forward pass.

Layers that read one another (shortcuts), that must know which positions are padding (routers), or
that add to the loss, meet here. Everything is forgotten when the next forward pass begins.

Shapes: n examples, T positions.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from torch import Tensor

_IGNORED = -100
"""The label of a token that is not learned."""


class Context:
    """One forward pass of one model.

    Attributes:
        mask: (n, T), 1 where there is something and 0 where there is padding; None if the model's
            inputs have no such thing.
        prompt: (n, T), True for what comes before the first token that is learned; None where
            tokens have no labels of their own. A router may look at nothing else: what it decides
            counts for all tokens, also for those that are to be predicted.
        notes: what layers leave for those that come after them, by keys of their own.
        penalties: (n,) each, what layers add to every example's loss.
    """

    def __init__(self) -> None:
        self.mask: Tensor | None = None
        self.prompt: Tensor | None = None
        self.notes: dict[Hashable, Tensor] = {}
        self.penalties: list[Tensor] = []
        self._next: Tensor | None = None

    def expect(self, batch: Mapping[str, Tensor]) -> None:
        """Say which records the next forward pass, and no later one, is about."""
        labels = batch.get("labels")
        if labels is not None and labels.dim() == 2:
            self._next = (labels != _IGNORED).cumsum(dim=1) == 0
        else:
            self._next = None

    def begin(self, mask: Tensor | None) -> None:
        """A new forward pass: nothing of the last one is left."""
        self.mask, self.notes, self.penalties = mask, {}, []
        self.prompt, self._next = self._next, None

    def penalty(self) -> Tensor | float:
        """The sum (n,) of what layers add to the losses; 0 if none does."""
        return torch.stack(self.penalties).sum(dim=0) if self.penalties else 0.0
