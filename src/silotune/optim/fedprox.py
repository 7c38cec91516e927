"""FedProx (Li et al. 2020, arXiv 1812.06127): every gradient pulls towards where a client began.

It acts after clipping and noise, and uses nothing else but public numbers and tensors that are
themselves made of such gradients: post-processing, so the privacy guarantee stays as it is. A
tensor without a gradient in this step (another phase's) is left alone.

Of two wrappers the innermost acts first: ``FedProxConfig(LowPassConfig(inner), mu)`` filters the
noise and then pulls.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from silotune.core import Key

from .base import Moves, OptimizerConfig


@dataclass(frozen=True)
class FedProxConfig:
    """FedProx (Li et al. 2020, arXiv 1812.06127): clients are pulled towards where they began.

    A client minimises ``f(theta) + mu/2 |theta - theta_0|^2``, so every gradient becomes
    ``g + mu (theta - theta_0)``. theta_0 is what the tensors are when the optimiser is built: the
    global state of the round, and a client's own for what stays with it. The pull counts for a
    tensor in every step that moves it, heads included.

    Attributes:
        inner: the optimiser that takes the step.
        mu: strength of the pull; 0 is the inner optimiser itself.

    Raises:
        ValueError: if mu is negative.
    """

    inner: OptimizerConfig
    mu: float

    def __post_init__(self) -> None:
        if not self.mu >= 0.0:
            raise ValueError(f"proximal_mu: must not be negative, not {self.mu}")

    @property
    def lr(self) -> float:
        """The inner optimiser's."""
        return self.inner.lr

    @property
    def moves_pairs(self) -> Moves:
        """The inner optimiser's."""
        return self.inner.moves_pairs

    @property
    def basis_free(self) -> bool:
        """The inner optimiser's."""
        return self.inner.basis_free

    def build(self, tensors: Mapping[Key, nn.Parameter], lr: float) -> torch.optim.Optimizer:
        """The inner optimiser, pulling towards ``tensors`` as they are now."""
        optimizer = self.inner.build(tensors, lr)
        start = {key: p.detach().clone() for key, p in tensors.items()}

        def pull(*_: object) -> None:
            for key, p in tensors.items():
                if p.grad is not None:
                    p.grad = torch.add(p.grad, p.detach() - start[key], alpha=self.mu)

        optimizer.register_step_pre_hook(pull)
        return optimizer
