"""No privacy: plain minibatch gradients, through the same kernels as the private ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from silotune.core import Batch, Key, PerExampleGradients

from .base import Losses, NoiseState, RoundRandomness
from .clipping import accumulate
from .noise import NoNoise
from .sampling import epochs
from .secure_rng import Randomness


@dataclass(frozen=True, kw_only=True)
class NoPrivacy:
    """The mean gradient over a shuffled batch of ``batch_size`` records."""

    batch_size: int

    @property
    def private(self) -> bool:
        """Never."""
        return False

    @property
    def max_grad_norm(self) -> float:
        """No bound."""
        return math.inf

    def draws(self, seed: int, past: NoiseState | None) -> RoundRandomness:
        """All from the seed."""
        return RoundRandomness(Randomness.insecure(seed), NoNoise(), 0)

    def batches(self, records: int, steps: int, draws: RoundRandomness) -> Iterator[Sequence[int]]:
        """Fixed-size batches from reshuffled epochs."""
        return (b.tolist() for b in epochs(records, self.batch_size, steps, draws.coins))

    def gradients(
        self,
        tensors: Mapping[Key, nn.Parameter],
        sink: PerExampleGradients,
        losses: Losses,
        micro_batches: Iterable[Batch],
        draws: RoundRandomness,
    ) -> int:
        """The mean gradient.

        Raises:
            ValueError: if a loss or gradient is not finite.
        """
        totals: dict[Key, Tensor] = {}
        plain = accumulate(sink, losses, micro_batches, self.max_grad_norm, totals=totals)
        if plain.dropped or not all(t.isfinite().all() for t in totals.values()):
            raise ValueError(
                f"{plain.dropped or 'some'} records gave a loss or gradient that is not finite: "
                "lower lr, or look for broken records with `silotune data`"
            )
        sums = {**plain.sums, **totals}
        for key, parameter in tensors.items():
            parameter.grad = sums[key] / plain.examples
        return 0

    def charge(self, steps: int) -> None:
        """Nothing is claimed."""
        return
