"""What costs no more than something else, by proof alone: nothing is computed.

A step of Gaussian noise after Poisson sampling is post-processing of the same step at a higher
rate: keep its outcome with probability q / q', else draw noise afresh (docs/privacy.md has the
proof). So it costs no more, at any delta, whatever it is composed with, and fewer steps cost no
more either. Every bound that is known for the one holds for the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .charges import AnyCharge, Charge, merged


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


def _below(charge: AnyCharge, other: AnyCharge) -> bool:
    """Whether one costs no more than the other."""
    if charge.steps > other.steps:
        return False
    if isinstance(charge, Charge) and isinstance(other, Charge):
        lower = charge.sampling_rate <= other.sampling_rate
        charge = replace(charge, sampling_rate=other.sampling_rate) if lower else charge
    return replace(charge, steps=0) == replace(other, steps=0)
