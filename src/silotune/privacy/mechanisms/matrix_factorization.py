"""Correlated noise: each step takes back much of the noise of the steps before it.

Training amounts to sums over steps, and those then carry far less noise (matrix factorisation,
DP-FTRL; Kairouz et al. 2021, arXiv 2103.00039). The factorisation is the banded square root of
Kalinin and Lampert 2024 (arXiv 2405.13763): x are the clipped sums of T steps, one row a step;
A (T, T) is all ones on and below the diagonal, so A x are the prefix sums; C is the lower
triangular Toeplitz matrix of the first ``bands`` coefficients of the square root of A. Step t
releases

    x_t + z_t,    z = C^-1 xi,    xi_t ~ N(0, sigma^2 bound^2 I) independent,

which gives prefix sums the noise A C^-1 xi. Step by step it is a function of C x + xi, whose row t
needs no later row of x: a Gaussian mechanism, also when each step depends on those before it
(Denisov et al. 2022, arXiv 2202.08312). What one record of norm at most 1 a step can move it by is

    sensitivity = max over patterns of |sum of the columns t of C in which it takes part|,

because C^T C >= 0 in every entry makes aligned contributions the worst (Choquette-Choo et
al. 2023, arXiv 2211.06530 and 2306.08153). The coefficients are positive and decrease, so the
worst pattern begins at once and comes back as early as it may (Kalinin and Lampert, theorem 2).

What this asks of the caller:

- Rounds are *not* independent releases: their noise has the same source. All steps of a stream
  are one Gaussian mechanism of noise multiplier sigma / sensitivity(all steps so far).
- A record takes part at steps at least ``separation`` apart, by a rule to which other records do
  not matter. There is no amplification by sampling: who takes part need not be secret.
- The key and the step count are the state of the stream and belong to the silo's checkpoint. The
  key stays secret for ever: whoever knows it can subtract the noise.
- A step's noise serves one release only. Two releases x_t + z_t and x'_t + z_t differ by x_t - x'_t
  exactly: no privacy at all. A step that was charged is sent again as it was, never trained anew.
- Noise is real numbers rounded to float64; nothing is claimed against attacks on their low bits.

Shapes: T ``steps``; memory is ``bands - 1`` rows of float64. Single-threaded numpy, product and
difference rounded apart, so a replay gives the same bits whatever the number of threads.
"""

from __future__ import annotations

import math
from collections import deque
from functools import lru_cache
from itertools import count

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .gaussian import standard_normal
from .secure_rng import Randomness

Row = NDArray[np.float64]


def sqrt_coefficients(bands: int) -> Row:
    """The first ``bands`` coefficients of 1 / sqrt(1 - z): 1, 1/2, 3/8, 5/16, ... (bands,).

    They are the first column of the square root of A (Fichtenberger et al. 2022, arXiv 2202.11205).

    Raises:
        ValueError: if ``bands`` is below 1.
    """
    _check("bands", bands)
    k = np.arange(1.0, bands)
    return np.concatenate([[1.0], np.cumprod((2.0 * k - 1.0) / (2.0 * k))])


def sensitivity(bands: int, separation: int, steps: int) -> float:
    """What one record can move C x by, in Frobenius norm, if it moves each x_t by at most 1.

    Never falls with ``steps``; 0 for none. sqrt(participations) for one band.

    Args:
        bands: of C.
        separation: least distance of two steps in which a record takes part; 1 allows all.
        steps: T.

    Raises:
        ValueError: if an argument is out of range.
    """
    _check("steps", steps, least=0)
    _check("separation", separation)
    c = sqrt_coefficients(min(bands, steps + 1))[:steps]
    turns = -(-steps // separation)
    columns = np.pad(c, (0, turns * separation - len(c))).reshape(turns, separation)
    moved = columns.cumsum(axis=0).ravel()[:steps]  # sum_j c[t - j separation]
    return math.sqrt(math.fsum(moved**2))  # fsum: more terms can never round to less


def prefix_error(bands: int, separation: int, steps: int) -> float:
    """Root mean square error of the T prefix sums, at equal privacy for every ``bands``.

    In units of bound times the noise multiplier of one release of everything, which is what the
    privacy budget decides: |A C^-1|_F / sqrt(T) * sensitivity. ``bands = 1`` is independent noise
    under the same participation.

    Raises:
        ValueError: if an argument is out of range.
    """
    _check("steps", steps)
    weights = np.arange(steps, 0.0, -1.0)  # row k of a Toeplitz matrix occurs T - k times
    noise = math.sqrt(weights @ _running(bands, steps) ** 2 / steps)
    return noise * sensitivity(bands, separation, steps)


@lru_cache(maxsize=256)
def best_bands(separation: int, steps: int) -> int:
    """The number of bands with the least ``prefix_error``. A public constant, free of data.

    Up to ``separation`` bands the columns of a record do not overlap, and the error falls to one
    minimum and rises again; beyond, it jumps at multiples of ``separation`` and only they can be
    better, up to one minimum again. Observed for all sizes to 100, not proved; if it fails, the
    noise is a little larger than need be and privacy is untouched.
    Takes a second for 10,000 steps; results are remembered.

    Raises:
        ValueError: if an argument is out of range.
    """
    _check("separation", separation)
    _check("steps", steps)

    def error(bands: int) -> float:
        return prefix_error(bands, separation, steps)

    low, high = 1, min(separation, steps)
    while low < high:
        middle = (low + high) // 2
        if error(middle + 1) < error(middle):
            low = middle + 1
        else:
            high = middle
    best = low
    for bands in range(2 * separation, steps + 1, separation):
        if error(bands) >= error(best):
            break
        best = bands
    return best


class CorrelatedStream:
    """The noise of one silo's whole run, from step ``start`` on.

    The same arguments give the same numbers, bit by bit: a stream begun at ``start`` goes on
    where one that was read from 0 stands, by drawing the rows before it again. That costs as much
    as the steps did, once.

    ``bands``, ``multiplier``, bound and size are part of every row's address, so a stream with
    another one of them shares no noise with this one, even under the same key.

    Args:
        g: secret, used for nothing else.
        bands: of C; 1 is independent noise.
        multiplier: sigma, the standard deviation of xi in units of the bound.
        start: steps released before.

    Raises:
        ValueError: if an argument is out of range.
    """

    def __init__(self, g: Randomness, bands: int, multiplier: float, start: int) -> None:
        _check("start", start, least=0)
        if not 0.0 <= multiplier < math.inf:
            raise ValueError(
                f"noise_multiplier: must be a finite number of 0 or more, not {multiplier}"
            )
        self._g, self._multiplier, self._start = g, float(multiplier), start
        self._c = sqrt_coefficients(bands).tolist()
        self._past = deque[Row](maxlen=bands - 1)  # z of the steps before, newest first
        self._steps = count()
        self._fixed: tuple[float, int] | None = None

    def draw(self, bound: float, numbers: int) -> Tensor:
        """Noise z of the next step, (numbers,) float64.

        Args:
            bound: L2 norm by which one record can move a step's sum; the same in every step.
            numbers: coordinates of that sum; the same in every step.

        Raises:
            ValueError: if one of them is out of range or changes.
        """
        if self._fixed is None:
            self._open(float(bound), numbers)
        if self._fixed != (bound, numbers):
            raise ValueError(
                "correlated noise: a stream cannot change from (bound, numbers) = "
                f"{self._fixed} to {(bound, numbers)}; keep max_grad_norm and what is "
                "trained the same in all rounds, or use noise: gaussian"
            )
        return torch.from_numpy(self._next() * (self._multiplier * bound))

    def _open(self, bound: float, numbers: int) -> None:
        """Fix what may not change and catch up to ``start``."""
        if not 0.0 < bound < math.inf:
            raise ValueError(f"max_grad_norm: must be positive and finite, not {bound}")
        _check("numbers", numbers)
        self._fixed = bound, numbers
        stream = (len(self._c), self._multiplier.hex(), bound.hex(), numbers)
        self._rows = self._g.fork("stream", *stream)
        for _ in range(self._start):
            self._next()

    def _next(self) -> Row:
        """The next z / (sigma bound): xi_t - sum_{k > 0} c_k z_{t-k}."""
        assert self._fixed is not None
        row = self._rows.fork("row", next(self._steps))
        z: Row = standard_normal(row, self._fixed[1]).numpy().copy()
        for c, before in zip(self._c[1:], self._past, strict=False):
            z -= c * before
        self._past.appendleft(z)
        return z


def _running(bands: int, steps: int) -> Row:
    """First column of the Toeplitz matrix A C^-1, (steps,): b = C^-1 1."""
    c = sqrt_coefficients(min(bands, steps))[:0:-1].copy()  # the last first, without c_0 = 1
    b = np.empty(steps)
    for t in range(steps):
        near = min(len(c), t)
        b[t] = 1.0 - c[len(c) - near :] @ b[t - near : t]
    return b


def _check(name: str, value: int, least: int = 1) -> None:
    if value < least:
        raise ValueError(f"correlated noise: {name} must be at least {least}, not {value}")
