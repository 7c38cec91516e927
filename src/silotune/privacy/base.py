"""What a privacy mechanism is: sampling, bounding, noise and the charge, from one frozen object.

Its fields are public and may be printed in a report. Whatever is sensitive (records, sizes,
generators) is only ever an argument.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from torch import Tensor, nn

from silotune.core import Batch, GradientSink, Key

from .accounting import Charge

Losses = Callable[[Batch], Tensor]
"""Per-example losses (n,) of a batch under the current tensors."""


class Privacy(Protocol):
    """How one silo draws its batches and forms its gradients."""

    @property
    def private(self) -> bool:
        """Whether what leaves the silo is covered by a guarantee."""
        ...

    @property
    def max_grad_norm(self) -> float:
        """C, what one record can move a step's sum by; infinity if nothing bounds it."""
        ...

    def batches(self, records: int, steps: int, seed: int) -> Iterator[Sequence[int]]:
        """One index batch a step; may be empty. ``seed`` never decides a private draw."""
        ...

    def gradients(
        self,
        tensors: Mapping[Key, nn.Parameter],
        sink: GradientSink,
        losses: Losses,
        micro_batches: Iterable[Batch],
    ) -> int:
        """Write ``.grad`` of ``tensors`` for one step; returns how many records gave no number."""
        ...

    def charge(self, steps: int) -> Charge | None:
        """The price of ``steps`` local steps; None if nothing is claimed."""
        ...
