"""What a privacy mechanism is: sampling, bounding, noise and the charge, from one frozen object.

Its fields are public and may be printed in a report. Whatever is sensitive (records, sizes, keys,
draws) is only ever an argument.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from torch import Tensor, nn

from silotune.core import Batch, Key, PerExampleGradients
from silotune.privacy.accounting.charges import AnyCharge

from .clipping import Accumulated, Losses
from .secure_rng import Randomness


@dataclass(frozen=True)
class NoiseState:
    """What a silo, or a server that hides its clients, remembers of a run at home.

    Attributes:
        key: 32 secret bytes of this run.
        steps: noised steps that it has already released.
    """

    key: bytes = field(repr=False)
    steps: int


class NoiseSource(Protocol):
    """The noise of successive steps, one after another."""

    def draw(self, bound: float, numbers: int) -> Tensor:
        """The next step's noise (numbers,), float64.

        Args:
            bound: L2 norm by which one record, or client, can move the sum.
            numbers: coordinates of that sum.
        """
        ...


class RoundRandomness(NamedTuple):
    """What is drawn in one round. Secret under privacy; never stored, sent or logged.

    Attributes:
        coins: decide which records a step sees, or which clients are asked.
        noise: is added to what they give.
        start: steps of the run before this round.
    """

    coins: Randomness
    noise: NoiseSource
    start: int


class ClientMechanism(Protocol):
    """How one silo draws its batches and forms its gradients."""

    @property
    def private(self) -> bool:
        """Whether what leaves the silo passes through a mechanism."""
        ...

    @property
    def max_grad_norm(self) -> float:
        """C, what one record can move a step's sum by; infinity if nothing bounds it."""
        ...

    @property
    def grid(self) -> float:
        """What clipped coordinates are rounded to, a power of two; 0 for no rounding."""
        ...

    def draws(self, seed: int, past: NoiseState | None) -> RoundRandomness:
        """The draws of one round. ``seed`` decides none of them under privacy."""
        ...

    def batches(self, records: int, steps: int, draws: RoundRandomness) -> Iterator[Sequence[int]]:
        """One index batch a step; may be empty."""
        ...

    def gradients(
        self,
        tensors: Mapping[Key, nn.Parameter],
        sink: PerExampleGradients,
        losses: Losses,
        micro_batches: Iterable[Batch],
        draws: RoundRandomness,
    ) -> int:
        """Write ``.grad`` of ``tensors`` for one step; returns how many records gave no number."""
        ...

    def noised(
        self, tensors: Mapping[Key, nn.Parameter], clipped: Accumulated, draws: RoundRandomness
    ) -> None:
        """Write ``.grad`` of ``tensors`` from a batch's clipped sums, on ``grid``."""
        ...

    def charge(self, steps: int) -> AnyCharge | None:
        """The price of ``steps`` local steps; None if nothing is claimed."""
        ...
