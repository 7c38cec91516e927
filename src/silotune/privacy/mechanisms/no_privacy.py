"""No privacy: plain minibatch gradients, by autograd; the kernels only save it memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from silotune.core import Batch, Key, PerExampleGradients

from .base import NoiseState, RoundRandomness
from .clipping import Accumulated, Losses
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

    @property
    def grid(self) -> float:
        """No rounding."""
        return 0.0

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
        examples = broken = 0
        for parameter in tensors.values():
            parameter.grad = None
        for batch in micro_batches:
            with sink.summed():
                each = losses(batch)
                torch.autograd.backward(each.sum())
            examples += len(each)
            broken += int((~each.detach().isfinite()).sum())
        sums = {key: p.grad for key, p in tensors.items() if p.grad is not None}
        self.noised(tensors, Accumulated(sums, examples, broken), draws)
        return 0

    def noised(
        self, tensors: Mapping[Key, nn.Parameter], clipped: Accumulated, draws: RoundRandomness
    ) -> None:
        """Write ``.grad`` of ``tensors``: the mean over a batch, without noise.

        Args:
            tensors: all that is trained.
            clipped: sums over the batch, of which nothing was clipped.
            draws: of this step; not used.

        Raises:
            ValueError: if a record's loss or gradient, or a sum of these, is not finite.
        """
        if clipped.dropped or not all(total.isfinite().all() for total in clipped.sums.values()):
            raise ValueError(
                f"{clipped.dropped or 'some'} records gave a loss or gradient that is not finite: "
                "lower lr, or look for broken records with `silotune data`"
            )
        for key, parameter in tensors.items():
            total = clipped.sums.get(key)
            total = torch.zeros_like(parameter) if total is None else total
            parameter.grad = (total / clipped.examples).to(parameter.dtype)

    def charge(self, steps: int) -> None:
        """Nothing is claimed."""
        return
