"""FedNova (Wang et al. 2020, arXiv 2007.07481): changes are averaged by the step.

Where clients take unequal steps, the mean of what they end with solves another problem than theirs:
whoever takes more steps counts for more. FedNova averages each client's change divided by its
reach a_i, how far its optimiser goes in its steps, and takes ``tau = E[a_i]`` of such steps:

    theta' = theta + tau E[(theta_i - theta) / a_i]

With equal steps that is the mean. It reads what was sent and public numbers alone.
"""

from __future__ import annotations

from dataclasses import replace

from silotune.core import ClientMean, Factors


def by_step(shared: Factors, start: Factors, reach: float) -> Factors:
    """A client's tensors, its change divided by its reach; float64.

    Args:
        shared: what it sent, whole tensors.
        start: where it began, under the same keys.
        reach: a_i.
    """
    return shared.zip(start, lambda end, begin: begin + (end.double() - begin) / reach)


def stretched(mean: ClientMean, start: Factors) -> ClientMean:
    """The mean of such tensors, ``E[a_i]`` steps along; products are those of nobody, and go."""
    along = mean.first.zip(start, lambda end, begin: begin + (end - begin) * mean.reach)
    return replace(mean, first=along, product={})
