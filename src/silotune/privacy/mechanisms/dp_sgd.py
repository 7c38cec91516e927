"""DP-SGD at each silo: hides any single record from everybody who sees the silo's messages.

Abadi et al. 2016 (arXiv 1607.00133), in the form

    g = (1/b) ( sum_{i in S} g_i min(1, C/|g_i|) + z ),        z ~ N(0, sigma^2 C^2 I),

where S is the step's sample and b the expected batch size: a public constant, never the number
that was drawn. An empty S still takes a noised step. Coins and noise are drawn under a key from
the operating system that never leaves the silo.

Guarantee: what a step costs follows from how S is drawn and which noise z is (``charge``); steps
compose (``privacy.accounting.accountant``). What the server sees after the local steps is
post-processing of them. No further amplification is claimed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from silotune.core import Batch, Key, PerExampleGradients
from silotune.privacy.accounting.charges import AnyCharge, Charge, CorrelatedCharge, TruncatedCharge

from .base import NoiseState, RoundRandomness
from .clipping import Accumulated, Losses, accumulate
from .noise import Correlated, Discrete, Gaussian, Noise, drawn
from .sampling import Poisson, Rotation, Sampling, TruncatedPoisson


@dataclass(frozen=True, kw_only=True)
class ExampleLevel:
    """The mechanism of one silo. All fields are public.

    Attributes:
        sampling: how S is drawn.
        noise: what z is; sigma is its multiplier.
        max_grad_norm: C.
        expected_batch_size: b, the denominator.
        insecure_seed: makes coins and noise reproducible, for experiments: NOT private then.

    Raises:
        ValueError: if a field is out of range, or nothing is proved for the combination.
    """

    sampling: Sampling
    noise: Noise
    max_grad_norm: float
    expected_batch_size: float
    insecure_seed: int | None = None

    def __post_init__(self) -> None:
        if self.noise.multiplier < 0.0:
            raise ValueError("noise_multiplier: must not be negative")
        if isinstance(self.noise, Discrete) and self.noise.multiplier == 0.0:
            raise ValueError("noise_multiplier: discrete noise must have some spread")
        if self.max_grad_norm <= 0.0:
            raise ValueError("max_grad_norm: must be positive")
        if isinstance(self.noise, Correlated) != isinstance(self.sampling, Rotation):
            raise ValueError(
                "noise: correlated and sampling: rotation belong together; no "
                "guarantee is proved here for one without the other"
            )

    @property
    def private(self) -> bool:
        """Always: everything that leaves is clipped and noised."""
        return True

    def draws(self, seed: int, past: NoiseState | None) -> RoundRandomness:
        """Under a fresh secret key; under the run's own where rounds hang together.

        Args:
            seed: the round's; used only with ``insecure_seed``.
            past: needed where rounds hang together, for correlated noise.

        Raises:
            ValueError: if there is no past where one is needed.
        """
        return drawn(self.noise, self.insecure_seed, seed, past)

    def batches(self, records: int, steps: int, draws: RoundRandomness) -> Iterator[Sequence[int]]:
        """The samples S of ``steps`` steps."""
        return self.sampling.batches(records, steps, draws)

    def gradients(
        self,
        tensors: Mapping[Key, nn.Parameter],
        sink: PerExampleGradients,
        losses: Losses,
        micro_batches: Iterable[Batch],
        draws: RoundRandomness,
    ) -> int:
        """Clip each record, add noise once for the whole batch, divide by the constant b."""
        clipped = accumulate(sink, losses, micro_batches, self.max_grad_norm, self.grid)
        self.noised(tensors, clipped, draws)
        return clipped.dropped

    @property
    def grid(self) -> float:
        """What clipped coordinates are rounded to; 0 for no rounding."""
        return self.noise.grid(self.max_grad_norm)

    def noised(
        self, tensors: Mapping[Key, nn.Parameter], clipped: Accumulated, draws: RoundRandomness
    ) -> None:
        """Write ``.grad`` of ``tensors`` from a batch's clipped sums: noise once, over b.

        Args:
            tensors: all that is trained; one that no record reached gets noise alone.
            clipped: sums over the batch, on ``grid``.
            draws: of this step.
        """
        noise = self._noise([p.numel() for p in tensors.values()], draws)
        for (key, parameter), z in zip(tensors.items(), noise, strict=True):
            total = clipped.sums.get(key)
            total = torch.zeros_like(parameter) if total is None else total
            if self.noise.multiplier:
                total = total + _like(z, total if self.grid else parameter)
            parameter.grad = (total / self.expected_batch_size).to(parameter.dtype)

    @staticmethod
    def noised_together(
        mechanisms: Sequence[ExampleLevel],
        tensors: Mapping[Key, nn.Parameter],
        sums: Mapping[Key, Tensor],
        draws: Sequence[RoundRandomness],
    ) -> None:
        """``noised`` of K clients, whose tensors and sums are stacked, (K, *shape) each.

        Args:
            mechanisms: of each; all with a grid, or none.
            tensors: all that is trained.
            sums: clipped, each client's on its own ``grid``.
            draws: of this step, of each.
        """
        sizes = [p[0].numel() for p in tensors.values()]
        each = zip(mechanisms, draws, strict=True)
        noise = torch.stack([torch.cat(list(m._noise(sizes, own))) for m, own in each])
        parts = torch.split(noise, sizes, dim=1)
        batch = torch.tensor([m.expected_batch_size for m in mechanisms], dtype=torch.float64)
        for (key, parameter), z in zip(tensors.items(), parts, strict=True):
            total = sums.get(key)
            total = torch.zeros_like(parameter) if total is None else total
            total = total + _like(z, total if mechanisms[0].grid else parameter)
            shares = batch.to(total).view(-1, *[1] * (total.dim() - 1))
            parameter.grad = (total / shares).to(parameter.dtype)

    def charge(self, steps: int) -> AnyCharge:
        """For sampling, sigma and steps; never for batch sizes that were drawn."""
        sigma = self.noise.multiplier
        match self.sampling, self.noise:
            case Rotation(turns), Correlated(bands=bands):
                return CorrelatedCharge(sigma, steps, bands, turns)
            case TruncatedPoisson(rate, largest, places), Gaussian() | Discrete() as noise:
                return TruncatedCharge(rate, sigma, steps, largest, places, noise.grid_points)
            case Poisson(rate), Gaussian() | Discrete() as noise:
                return Charge(rate, sigma, steps, noise.grid_points)
        raise AssertionError("refused when it was built")

    def _noise(self, sizes: Sequence[int], draws: RoundRandomness) -> Sequence[Tensor]:
        """One draw for all tensors, in parts."""
        if not self.noise.multiplier:
            return [torch.zeros(size) for size in sizes]
        return torch.split(draws.noise.draw(self.max_grad_norm, sum(sizes)), list(sizes))


def _like(noise: Tensor, other: Tensor) -> Tensor:
    return noise.reshape(other.shape).to(other)
