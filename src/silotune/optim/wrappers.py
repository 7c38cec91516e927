"""Wrappers: what is done to every gradient before any optimiser takes its step.

They act after clipping and noise, and use nothing else but public numbers and tensors that are
themselves made of such gradients. So they are post-processing: the privacy guarantee stays as it
is. A tensor without a gradient in this step (another phase's) is left alone.

The innermost wrapper acts first: ``Proximal(LowPass(inner), mu)`` filters the noise and then pulls.

Shapes: out, in = features of a site, r = rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Key, Role

from .base import Moves, Optimizer


@dataclass(frozen=True)
class Proximal:
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

    inner: Optimizer
    mu: float

    def __post_init__(self) -> None:
        if not self.mu >= 0.0:
            raise ValueError(f"train.proximal_mu: must not be negative, not {self.mu}")

    @property
    def learning_rate(self) -> float:
        """The inner optimiser's."""
        return self.inner.learning_rate

    @property
    def moves_pairs(self) -> Moves:
        """The inner optimiser's."""
        return self.inner.moves_pairs

    def build(
        self, tensors: Mapping[Key, nn.Parameter], learning_rate: float
    ) -> torch.optim.Optimizer:
        """The inner optimiser, pulling towards ``tensors`` as they are now."""
        optimizer = self.inner.build(tensors, learning_rate)
        start = {key: p.detach().clone() for key, p in tensors.items()}

        def pull(*_: object) -> None:
            for key, p in tensors.items():
                if p.grad is not None:
                    p.grad = torch.add(p.grad, p.detach() - start[key], alpha=self.mu)

        optimizer.register_step_pre_hook(pull)
        return optimizer


@dataclass(frozen=True)
class LowPass:
    """LA-LoRA's filter (arXiv 2602.19926): noise is smoothed along the features of A and B.

    Every gradient row of A (r, in) and every column of B (out, r) is convolved with
    [1, 4, 6, 4, 1]/16 along its features; never across ranks, which have no order. Heads and whole
    matrices are left alone. White noise keeps 70/256 of its variance. At the edges the
    sequence is continued by its mirror image (c b a | a b c), so that the filter is a symmetric
    positive semidefinite matrix with rows that sum to 1: constants stay, sums stay, and a filtered
    gradient is still a direction of descent.

    Whether neighbouring features have similar gradients is an assumption about the model.
    """

    inner: Optimizer

    @property
    def learning_rate(self) -> float:
        """The inner optimiser's."""
        return self.inner.learning_rate

    @property
    def moves_pairs(self) -> Moves:
        """The inner optimiser's."""
        return self.inner.moves_pairs

    def build(
        self, tensors: Mapping[Key, nn.Parameter], learning_rate: float
    ) -> torch.optim.Optimizer:
        """The inner optimiser, reading filtered gradients."""
        optimizer = self.inner.build(tensors, learning_rate)

        def smooth(*_: object) -> None:
            for key, p in tensors.items():
                if p.grad is not None and key.role is Role.A:
                    p.grad = low_pass(p.grad)
                elif p.grad is not None and key.role is Role.B:
                    p.grad = low_pass(p.grad.mT).mT.contiguous()

        optimizer.register_step_pre_hook(smooth)
        return optimizer


def low_pass(rows: Tensor) -> Tensor:
    """Every row of (n, features) filtered with [1, 4, 6, 4, 1]/16, which is [1, 2, 1]/4 twice."""
    half = torch.tensor([[[0.25, 0.5, 0.25]]], dtype=rows.dtype, device=rows.device)
    smooth = rows.unsqueeze(1)
    for _ in range(2):
        smooth = F.conv1d(F.pad(smooth, (1, 1), mode="replicate"), half)
    return smooth.squeeze(1)
