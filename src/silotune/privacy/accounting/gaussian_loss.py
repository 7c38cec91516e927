"""The privacy loss of one step of Gaussian noise, sampled or not, as dp-accounting builds it.

By its algorithm ("connect the dots", Doroshenko et al. 2022, arXiv 2207.04380) and its parts; but
the outcomes where the loss passes each point of the grid are found all at once, where the library
asks for one after the other, which takes nine tenths of its time.

Below, f(e) = log(1 + (exp(e) - 1) / q) is the loss without sampling where it is e with it.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from .charges import Relation

Points = NDArray[np.float64]


def gaussian_loss(
    sigma: float, interval: float, *, sampling_rate: float = 1.0, relation: Relation = "add-remove"
) -> Any:
    """Of noise on a sum that one record moves by 1; an upper bound.

    Args:
        sigma: noise multiplier, above 0.
        interval: of the grid.
        sampling_rate: of Poisson sampling, above 0 and at most 1.
        relation: between neighbouring data sets; with replace-one the sum moves by 2.
    """
    from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
    from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType as Side

    def side(side: Side) -> Any:
        return _one_side(sigma, sampling_rate, side, interval)

    if relation == "replace-one":
        return PrivacyLossDistribution(side(Side.REPLACE))
    if sampling_rate == 1.0:
        return PrivacyLossDistribution(side(Side.REMOVE))
    return PrivacyLossDistribution(side(Side.REMOVE), side(Side.ADD))


def _one_side(sigma: float, q: float, side: Any, interval: float) -> Any:
    from dp_accounting.pld.pld_pmf import create_pmf_pessimistic_connect_dots_fixed_gap
    from dp_accounting.pld.privacy_loss_mechanism import GaussianPrivacyLoss

    mechanism = GaussianPrivacyLoss(sigma, sampling_prob=q, adjacency_type=side)
    ends = mechanism.connect_dots_bounds()
    low, high = math.floor(ends.epsilon_lower / interval), math.ceil(ends.epsilon_upper / interval)
    deltas = hockey_sticks(mechanism, interval * np.arange(low, high + 1))
    return create_pmf_pessimistic_connect_dots_fixed_gap(interval, low, high, deltas)


def hockey_sticks(mechanism: Any, losses: Points) -> Points:
    """(n,) the delta of every epsilon: what ``mechanism.get_delta_for_epsilon`` gives.

    The outcome that splits them is where delta is largest, so what it is off by rounding counts
    squared.

    Args:
        mechanism: a ``GaussianPrivacyLoss`` of sensitivity 1.
        losses: (n,) epsilons.
    """
    from dp_accounting.pld.privacy_loss_mechanism import AdjacencyType as Side

    sigma, q = mechanism.standard_deviation, mechanism.sampling_prob
    if mechanism.adjacency_type == Side.REPLACE:
        outcomes = _where_replaced(losses, sigma, q)
    elif mechanism.adjacency_type == Side.REMOVE:
        outcomes = _where_removed(losses, sigma, q)
    else:
        outcomes = -_where_removed(-losses, sigma, q)
    lower = np.exp(losses + mechanism.mu_lower_log_cdf(outcomes))
    found: Points = np.clip(mechanism.mu_upper_cdf(outcomes) - lower, 0.0, 1.0)
    return found


def _where_removed(losses: Points, sigma: float, q: float) -> Points:
    """The largest outcome that loses as much; infinity where all do."""
    if q < 1.0:
        with np.errstate(over="ignore", divide="ignore"):
            least = np.minimum((1.0 - q) * np.exp(-losses), 1.0)
            losses = losses - math.log(q) + np.log1p(-least)
    return -0.5 - sigma**2 * losses


def _where_replaced(losses: Points, sigma: float, q: float) -> Points:
    """By asinh(a sinh(e / 2)), a = exp(1 / 2 sigma^2) (1 - q) / q, in logarithms."""
    if q == 1.0:
        return -(sigma**2) * losses / 2
    half = np.abs(losses) / 2
    with np.errstate(divide="ignore"):
        log_sinh = half + np.log(-np.expm1(-2 * half)) - math.log(2)
    large = 0.5 / sigma**2 + math.log1p(-q) - math.log(q) + log_sinh
    asinh = np.logaddexp(large, np.logaddexp(2 * large, 0.0) / 2)
    outcomes: Points = -(sigma**2) * np.sign(losses) * (asinh + half)
    return outcomes
