"""How far an optimiser goes in so many steps, which FedNova divides a client's change by.

Wang et al. 2020 (arXiv 2007.07481) write a client's change as a sum of its gradients with weights
a_k, and divide it by their sum. That sum is what a gradient of 1 in every step would move, so it is
found here by taking the steps: ``sum_k lr_k`` for SGD, the momentum's and the proximal term's
formulas of the paper where they are there, at rates that a schedule may change. Weight decay pulls
towards zero, not towards where the round began, and is left out, as it is in the paper.
"""

from __future__ import annotations

from collections.abc import Sequence

from .base import OptimizerConfig
from .fedprox import FedProxConfig
from .torch_optim import SGD


def reach(optimizer: OptimizerConfig, rates: Sequence[float]) -> float:
    """The distance, for a gradient of 1 in every step; of what is not SGD the sum of the rates.

    Args:
        optimizer: the client's, which begins the round with no momentum.
        rates: of its steps.
    """
    mu = 0.0
    while isinstance(optimizer, FedProxConfig):
        mu, optimizer = mu + optimizer.mu, optimizer.inner
    momentum = optimizer.momentum if isinstance(optimizer, SGD) else 0.0
    gone, speed = 0.0, 0.0
    for rate in rates:
        speed = momentum * speed + 1.0 - mu * gone
        gone += rate * speed
    return gone
