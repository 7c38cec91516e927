"""DP-FedAvg at a trusted server: hides any single client from everybody who sees the models.

McMahan et al. 2018 (arXiv 1710.06963). Let x_k be what client k sends and x_t what one that changes
nothing would send: all shared tensors as one vector, and with them the products B A of every site
if the aggregator pools them. The mean that it sees is

    x_t + (1 / q N) ( sum_{k in cohort} d_k min(1, S / |d_k|) + noise ),       d_k = x_k - x_t.

q N is the expected cohort: a public constant, whoever is missing. An empty cohort still takes a
noised step. One vector of noise covers all that the mean has; a pooled product has it in every
entry of its (out, in) matrix, so its sum is dense. There are two ways:

- ``Poisson`` and ``Gaussian``: each client is asked by its own secret coin of probability q, and
  the noise is N(0, z^2 S^2 I), afresh in each round. Every round is one Poisson-subsampled Gaussian
  mechanism of noise multiplier z, as long as the cohorts are secret.
- ``Rotation`` and ``Correlated`` (DP-FTRL): each client has one turn of 1 / q, drawn once in a run,
  and is asked whenever it comes round; the noise of round t is row t of the run's one stream
  (``matrix_factorization``). All rounds together are one Gaussian mechanism of noise multiplier
  z / sensitivity. Nothing is claimed for the secrecy of cohorts; they stay secret all the same.

Either holds when one client with all its records, in all rounds, is added or removed, or gives
nothing in its place (zero-out), against whoever sees the released models, **not against the
server**. Nothing else about a round may be told.

Adaptive clipping (Andrew et al. 2021, arXiv 1905.03871): every client of the cohort also adds
1[|d_k| <= S] - 1/2, with noise of std sigma_b = q N / 20, and S follows the share b so measured,

    S <- S exp(-0.2 (b - target)).

A client moves both sums at once, by S and by 1/2, so the changes get the noise multiplier
(z^-2 - (2 sigma_b)^-2)^(-1/2) and the price stays that of z. In a stream S must not change.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from silotune.core import ClientId, ClientMean, Factors, Key, Role, Statistics
from silotune.linalg import LowRank, Matrix, add, dense
from silotune.privacy.accounting.charges import AnyCharge, Charge, CorrelatedCharge

from .base import NoiseState, RoundRandomness
from .gaussian import standard_normal
from .noise import Correlated, Gaussian, drawn
from .sampling import Poisson, Rotation
from .server import Release, RoundStart

CLIPPING_NORM = "clipping_norm"
"""Name of S in the server's memory."""

PACE = 0.2
"""By how much S follows the measured share in one round."""

WITHIN = Key("", Role.HEAD, "within the clipping norm")
"""How many changes were within S, less one half each: a number of no site, summed with the rest."""

_ROUNDING = torch.finfo(torch.float64).eps


@dataclass(frozen=True, kw_only=True)
class ClientLevel:
    """The mechanism of the server. All fields are public.

    Attributes:
        clients: N, how many there are.
        sampling: how the cohort is drawn.
        noise: its multiplier z is the std in units of S; what is accounted.
        max_update_norm: S; where it adapts, the first one.
        target_quantile: share of clients whose change S is to leave whole; None = S stays.
        insecure_seed: draw cohorts and noise from this seed, reproducible and NOT private; None =
            from the operating system.

    Raises:
        ValueError: if a field is out of range, nothing is proved for the combination, or nothing is
            left of z for adaptive clipping.
    """

    clients: int
    sampling: Poisson | Rotation
    noise: Gaussian | Correlated
    max_update_norm: float
    target_quantile: float | None = None
    insecure_seed: int | None = None

    def __post_init__(self) -> None:
        if self.clients < 1:
            raise ValueError(f"clients: there must be at least 1 client, not {self.clients}")
        if isinstance(self.noise, Correlated) != isinstance(self.sampling, Rotation):
            raise ValueError(
                "noise: correlated and sampling: rotation belong together; no "
                "guarantee is proved here for one without the other"
            )
        if not 0.0 <= self.noise_multiplier < math.inf:
            raise ValueError("noise_multiplier: must be a finite number of 0 or more")
        if self.max_update_norm <= 0.0:
            raise ValueError("max_update_norm: must be positive")
        if self.noise_multiplier and math.isinf(self.max_update_norm):
            raise ValueError("max_update_norm: must be finite, or no noise is enough")
        if self.target_quantile is not None:
            self._check_adaptive(self.target_quantile)

    @property
    def private(self) -> bool:
        """Always."""
        return True

    @property
    def sampling_rate(self) -> float:
        """The share q of all clients that a round expects."""
        sampling = self.sampling
        return sampling.rate if isinstance(sampling, Poisson) else 1 / sampling.turns

    @property
    def noise_multiplier(self) -> float:
        """The multiplier z of the noise."""
        return self.noise.multiplier

    @property
    def expected_cohort(self) -> float:
        """The denominator q N."""
        return self.sampling_rate * self.clients

    @property
    def count_noise(self) -> float:
        """sigma_b: std of the noise on the number of changes within S; half of z counts it."""
        return self.expected_cohort / 20 if self.noise_multiplier else 0.0

    @property
    def update_noise(self) -> float:
        """Noise multiplier of the changes alone, in units of S; z unless clipping adapts."""
        if self.target_quantile is None or not self.noise_multiplier:
            return self.noise_multiplier
        return 1 / math.sqrt(self.noise_multiplier**-2 - (2 * self.count_noise) ** -2)

    def clipping_norm(self, memory: Mapping[str, Tensor]) -> float:
        """S of this round."""
        adapted = memory.get(CLIPPING_NORM)
        return self.max_update_norm if adapted is None else float(adapted)

    def draws(self, round: int, past: NoiseState | None) -> RoundRandomness:
        """Fresh ones, or the next row of the run's stream.

        Raises:
            ValueError: if the stream does not stand where the run does.
        """
        if isinstance(self.noise, Correlated) and past and past.steps != round:
            raise ValueError(
                f"{past.steps} rounds have drawn correlated noise, and this would be round "
                f"{round + 1}: the server's folder and the checkpoint do not belong together; "
                "begin a new run"
            )
        noise = replace(self.noise, multiplier=self.update_noise)
        return drawn(noise, self.insecure_seed, round, past)

    def cohort(self, clients: Sequence[ClientId], draws: RoundRandomness) -> Sequence[ClientId]:
        """A Poisson sample, or those whose turn it is; secret."""
        [chosen] = self.sampling.batches(len(clients), 1, draws)
        return [clients[i] for i in chosen]

    def bound(self, contribution: Statistics, before: RoundStart) -> Statistics:
        """The change, scaled to norm at most S; zero if it is not finite or too large to measure.

        One norm for all of ``before.shared`` together; products that are not in it are left out.
        The weight of the contribution has no effect.
        """
        change, limit = _zero(before.shared), self.clipping_norm(before.memory)
        norm = math.inf
        if contribution.bounded():
            moved = _change(contribution, before.shared)
            norm = _norm(moved)
            change = moved if math.isfinite(norm) else change  # zero times infinity is NaN
        bounded = _scaled(change, min(1.0, limit / norm) if norm else 1.0)
        if self.target_quantile is None:
            return bounded
        within = torch.tensor(0.5 if norm <= limit else -0.5, dtype=torch.float64)
        return replace(bounded, first=bounded.first.updated({WITHIN: within}))

    def mean(self, total: Statistics | None, before: RoundStart, draws: RoundRandomness) -> Release:
        """Noise once on every coordinate of the sum, over the expected cohort, added to x_t."""
        shared = before.shared
        sums, noise = total or _zero(shared), self._noise(before, draws)

        def released(start: Matrix, change: Matrix) -> Tensor:
            noised = dense(change) + next(noise).view(tuple(start.shape))
            return dense(start) + noised / self.expected_cohort

        mean = ClientMean(
            first=Factors({k: released(t, sums.first[k]) for k, t in shared.first.items()}),
            product={s: released(m, sums.product[s]) for s, m in shared.product.items()},
        )
        return Release(mean, self._memory(sums, before, draws))

    def charge(self) -> AnyCharge:
        """For sampling and z; never for the cohort that was drawn."""
        match self.sampling, self.noise:
            case Rotation(turns), Correlated(z, bands):
                return CorrelatedCharge(z, 1, bands, turns)
            case Poisson(rate), Gaussian(z):
                return Charge(rate, z, 1)
        raise AssertionError("refused when it was built")

    def _noise(self, before: RoundStart, draws: RoundRandomness) -> Iterator[Tensor]:
        """One vector for all that the mean has, in parts of (numbers,), in its order."""
        parts = [*before.shared.first.values(), *before.shared.product.values()]
        sizes = [math.prod(part.shape) for part in parts]
        if not self.noise_multiplier:  # S may be infinite
            return (torch.zeros(size, dtype=torch.float64) for size in sizes)
        bound = self.clipping_norm(before.memory)
        return iter(torch.split(draws.noise.draw(bound, sum(sizes)), sizes))

    def _memory(
        self, sums: Statistics, before: RoundStart, draws: RoundRandomness
    ) -> Mapping[str, Tensor]:
        """The next S, if it adapts."""
        if self.target_quantile is None:
            return before.memory
        count = sums.first.get(WITHIN, torch.zeros((), dtype=torch.float64))
        noise = standard_normal(draws.coins.fork("count"), 1)[0] * self.count_noise
        share = (count + noise) / self.expected_cohort + 0.5
        moved = self.clipping_norm(before.memory) * torch.exp(
            -PACE * (share - self.target_quantile)
        )
        return {**before.memory, CLIPPING_NORM: moved}

    def _check_adaptive(self, quantile: float) -> None:
        if isinstance(self.noise, Correlated):
            raise ValueError(
                "adaptive_clipping: correlated noise needs the same clipping norm in every "
                "round; set it to false, or use noise: gaussian"
            )
        if not 0.0 < quantile < 1.0:
            raise ValueError(f"target_quantile: must be between 0 and 1, not {quantile}")
        if math.isinf(self.max_update_norm):
            raise ValueError("max_update_norm: adaptive clipping begins at a finite one")
        if self.noise_multiplier and self.noise_multiplier >= 2 * self.count_noise:
            raise ValueError(
                f"adaptive_clipping: with {self.expected_cohort:g} clients expected in a "
                f"round it needs a noise multiplier below {2 * self.count_noise:g}, not "
                f"{self.noise_multiplier:.3g}; set it to false, or let more clients take part"
            )


def _change(sent: Statistics, shared: Statistics) -> Statistics:
    mean = sent.mean()
    return Statistics(
        weight=1.0,
        first=mean.first.zip(shared.first, lambda x, start: x - start),
        product={s: add(mean.product[s], m * -1.0) for s, m in shared.product.items()},
    )


def _scaled(change: Statistics, c: float) -> Statistics:
    return Statistics(
        weight=1.0,
        first=change.first.map(lambda t: t * c),
        product={s: m * c for s, m in change.product.items()},
    )


def _zero(shared: Statistics) -> Statistics:
    """No change at all."""
    return Statistics(
        weight=0.0,
        first=shared.first.map(torch.zeros_like),
        product={s: torch.zeros(m.shape, dtype=torch.float64) for s, m in shared.product.items()},
    )


def _norm(change: Statistics) -> float:
    """The joint L2 norm, never below the true one."""
    squares = [t.square().sum() for t in change.first.values()]
    squares += [_square(m) for m in change.product.values()]
    return math.sqrt(float(torch.stack(squares).sum())) * (1.0 + 32 * _ROUNDING)


def _square(matrix: Matrix) -> Tensor:
    """Squared Frobenius norm; of a product by its (k, k) Gram matrices, rounded up.

    The terms of the Gram form nearly cancel where a client changed little, so the most that
    rounding can take away is added.
    """
    if not isinstance(matrix, LowRank):
        return matrix.square().sum()
    left, right = matrix.left, matrix.right
    gram = ((left.mT @ left) * (right @ right.mT)).sum()
    most = left.square().sum() * right.square().sum()
    return gram.clamp(min=0.0) + (sum(matrix.shape) + matrix.rank**2) * _ROUNDING * most
