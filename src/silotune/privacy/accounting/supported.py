"""What is proved, under which neighbouring relation, and what is therefore refused.

- Poisson sampling: add-remove and zero-out have the same worst case (Zhu, Dong, Wang 2022, arXiv
  2106.08567). Under replace-one it is two records that give opposite vectors: in the hockey-stick
  integral E f(e^X, e^Y), with X and Y the log-likelihoods of the two Gaussians, f is convex in
  each argument and f_uv <= 0, so it grows with the vectors' norms and falls as their inner
  product grows (by the interpolation that proves Slepian's inequality).
- Truncated Poisson sampling: zero-out (arXiv 2508.15089). Under the others, a record more or less
  changes how the rest is cut, which that proof does not cover: refused.
- Discrete noise: whatever is proved for continuous noise (``discrete``).
- Correlated noise: the steps of one stream together are one Gaussian mechanism whose sensitivity
  is that of the factorisation (``privacy.mechanisms.matrix_factorization``), also where each step
  depends on those before (Denisov et al. 2022, arXiv 2202.08312). Replace-one doubles it.

No amplification is claimed for silos that are not asked, for averages over silos, for steps whose
result nobody saw, or for turns that nobody knows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from silotune.privacy.mechanisms.matrix_factorization import sensitivity

from .charges import AnyCharge, Charge, CorrelatedCharge, Relation, TruncatedCharge


def check_proved(charges: Sequence[AnyCharge], relation: Relation) -> None:
    """Refuse charges that have no proved price together.

    Raises:
        ValueError: naming the keys that would have to change.
    """
    truncated = any(isinstance(charge, TruncatedCharge) for charge in charges)
    if truncated and relation != "zero-out":
        raise ValueError(
            f"relation: truncated Poisson sampling has no proved price under {relation}; "
            "set it to zero-out, or sampling to poisson"
        )


def one_gaussian(charge: AnyCharge, relation: Relation) -> float | None:
    """The noise multiplier of the single Gaussian mechanism that a charge is; None if it is none.

    T steps without sampling are one of sigma / sqrt(T), and a stream of correlated noise is one
    of sigma over its sensitivity. Infinity without steps.
    """
    match charge:
        case CorrelatedCharge(sigma, steps, bands, separation):
            moved = sensitivity(bands, separation, steps) if steps else 0.0
        case Charge(1.0, sigma, steps):
            moved = math.sqrt(steps)
        case _:
            return None
    moved *= 2.0 if relation == "replace-one" else 1.0
    return sigma / moved if moved else math.inf
