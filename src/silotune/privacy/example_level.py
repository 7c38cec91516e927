"""DP-SGD at each silo: hides any single record from everybody who sees the silo's messages.

Abadi et al. 2016 (arXiv 1607.00133), in the form

    g = (1/b) ( sum_{i in S} g_i min(1, C/|g_i|) + N(0, sigma^2 C^2 I) ),

where every record enters S by its own coin of probability q, and b = q * num_examples is the
expected batch size: a public constant, never the number that was drawn. An empty S still takes a
noised step. The coins and the noise come from the operating system and are never stored or sent:
amplification by sampling holds only while the coins are secret.

Guarantee: each step is one Poisson-subsampled Gaussian mechanism of noise multiplier sigma under
add/remove of one record; steps compose (``accounting``). What the server sees after the local
steps is post-processing of them. No further amplification is claimed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from silotune.core import Batch, GradientSink, Key

from .accounting import Charge
from .base import Losses
from .clipping import accumulate
from .noise import gaussian
from .sampling import poisson


@dataclass(frozen=True, kw_only=True)
class ExampleLevel:
    """The mechanism of one silo. All fields are public.

    Attributes:
        sampling_rate: q, chance of a record to be in a batch.
        noise_multiplier: sigma, noise std in units of the clip norm.
        max_grad_norm: C.
        expected_batch_size: b, the denominator.

    Raises:
        ValueError: if a field is out of range.
    """

    sampling_rate: float
    noise_multiplier: float
    max_grad_norm: float
    expected_batch_size: float

    def __post_init__(self) -> None:
        if not 0.0 < self.sampling_rate <= 1.0:
            raise ValueError(
                f"train.batch_size: the sampling rate must be in (0, 1], not {self.sampling_rate}; "
                "the expected batch cannot be larger than the silo's num_examples"
            )
        if self.noise_multiplier < 0.0:
            raise ValueError("privacy.noise_multiplier: must not be negative")
        if self.max_grad_norm <= 0.0:
            raise ValueError("privacy.max_grad_norm: must be positive")

    @property
    def private(self) -> bool:
        """Always: everything that leaves is clipped and noised."""
        return True

    def batches(self, records: int, steps: int, seed: int) -> Iterator[Sequence[int]]:
        """Poisson batches; ``seed`` is ignored because coins must be secret."""
        for _ in range(steps):
            yield poisson(records, self.sampling_rate).tolist()

    def gradients(
        self,
        tensors: Mapping[Key, nn.Parameter],
        sink: GradientSink,
        losses: Losses,
        micro_batches: Iterable[Batch],
    ) -> int:
        """Clip each record, add noise once for the whole batch, divide by the constant b."""
        clipped = accumulate(sink, losses, micro_batches, self.max_grad_norm)
        noise = self._noise([p.numel() for p in tensors.values()])
        for (key, parameter), drawn in zip(tensors.items(), noise, strict=True):
            total = clipped.sums[key] if clipped.examples else torch.zeros_like(parameter)
            if self.noise_multiplier:
                total = total + drawn.view(parameter.shape).to(parameter.device)
            parameter.grad = total / self.expected_batch_size
        return clipped.dropped

    def _noise(self, sizes: Sequence[int]) -> Sequence[Tensor]:
        """One draw for all tensors, in parts: N(0, sigma^2 C^2) in every coordinate."""
        if not self.noise_multiplier:
            return [torch.empty(0)] * len(sizes)
        std = self.noise_multiplier * self.max_grad_norm
        return torch.split(gaussian((sum(sizes),), std), list(sizes))

    def charge(self, steps: int) -> Charge:
        """For q, sigma and the steps; never for batch sizes that were drawn."""
        return Charge(self.sampling_rate, self.noise_multiplier, steps)
