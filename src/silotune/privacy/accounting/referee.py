"""dp-accounting itself, for figures that others rely on, and as a check of the faster way.

It builds losses from the same deltas as ``gaussian_loss`` (a test compares them with the library's
own, which it computes one by one), and leaves everything else to the library. What it gives answers
to the same names as ``PrivacyLoss``.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from .gaussian_loss import Side, Step

if TYPE_CHECKING:
    from .charges import Relation


def library_loss(
    sigma: float, interval: float, *, sampling_rate: float = 1.0, relation: Relation = "add-remove"
) -> Any:
    """As ``gaussian_loss``, but a ``PrivacyLossDistribution`` of dp-accounting."""
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution

    def side(side: Side) -> Any:
        return _one_side(Step(sigma, sampling_rate, side), interval)

    if relation == "replace-one":
        return PrivacyLossDistribution(side("replace"))
    if sampling_rate == 1.0:
        return PrivacyLossDistribution(side("remove"))
    return PrivacyLossDistribution(side("remove"), side("add"))


def _one_side(step: Step, interval: float) -> Any:
    from dp_accounting.pld.pld_pmf import create_pmf_pessimistic_connect_dots_fixed_gap
    from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType, GaussianPrivacyLoss

    side = AdjacencyType[step.side.upper()]
    mechanism = GaussianPrivacyLoss(step.sigma, sampling_prob=step.q, adjacency_type=side)
    ends = mechanism.connect_dots_bounds()
    low, high = math.floor(ends.epsilon_lower / interval), math.ceil(ends.epsilon_upper / interval)
    deltas = step.deltas(interval * np.arange(low, high + 1, dtype=np.float64))
    return create_pmf_pessimistic_connect_dots_fixed_gap(interval, low, high, deltas)
