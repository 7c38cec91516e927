"""What costs no more than something else, by proof alone: nothing is computed.

A step of Gaussian noise after Poisson sampling is post-processing of the same step at a higher
rate: keep its outcome with probability q / q', else draw noise afresh (docs/privacy.md has the
proof). So it costs no more, at any delta, whatever it is composed with, and fewer steps cost no
more either. Every bound that is known for the one holds for the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

from .charges import AnyCharge, Charge, merged

_WIDER = 1.05
"""From one kind of ``dearer`` charge to the next."""


def dominated(charges: Iterable[AnyCharge], by: Iterable[AnyCharge]) -> bool:
    """Whether ``charges`` together are no dearer than ``by`` together, as far as this can tell.

    Args:
        charges: of one silo and one run, in any order.
        by: of which each may stand for several, but no more steps than it has.
    """
    left = list(merged(by))
    for charge in merged(charges):
        place = next((i for i, other in enumerate(left) if _below(charge, other)), None)
        if place is None:
            return False
        left[place] = replace(left[place], steps=left[place].steps - charge.steps)
    return True


def dearer(charge: AnyCharge) -> AnyCharge:
    """A charge that costs no less, of which there are few kinds: some 5 % more of each number.

    By the proof above, and since more noise is post-processing of less. Where nothing is proved of
    other rates, a charge is its own.
    """
    if not isinstance(charge, Charge) or not (charge.steps and charge.noise_multiplier):
        return charge
    q, sigma = charge.sampling_rate, charge.noise_multiplier
    return replace(
        charge,
        sampling_rate=min(max(_power(q), q), 1.0),
        noise_multiplier=min(1.0 / _power(1.0 / sigma), sigma),
        steps=max(math.ceil(_power(charge.steps)), charge.steps),
    )


def _power(number: float) -> float:
    """The next power of ``_WIDER``, but for rounding."""
    return float(_WIDER ** math.ceil(math.log(number) / math.log(_WIDER) - 1e-9))


def _below(charge: AnyCharge, other: AnyCharge) -> bool:
    """Whether one costs no more than the other."""
    if charge.steps > other.steps:
        return False
    if isinstance(charge, Charge) and isinstance(other, Charge):
        lower = charge.sampling_rate <= other.sampling_rate
        charge = replace(charge, sampling_rate=other.sampling_rate) if lower else charge
    return replace(charge, steps=0) == replace(other, steps=0)
