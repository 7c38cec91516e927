"""LA-LoRA's filter (arXiv 2602.19926): gradients are smoothed along features before any step.

It acts after clipping and noise, and uses nothing else: post-processing, so the privacy guarantee
stays as it is. A tensor without a gradient in this step (another phase's) is left alone.

Shapes: out, in = features of a site, r = rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Key, Role

from .base import Moves, OptimizerConfig


@dataclass(frozen=True)
class LowPassConfig:
    """LA-LoRA's filter (arXiv 2602.19926): noise is smoothed along the features of A and B.

    Every gradient row of A (r, in) and every column of B (out, r) is convolved with
    [1, 4, 6, 4, 1]/16 along its features; never across ranks, which have no order. Heads and whole
    matrices are left alone. White noise keeps 70/256 of its variance. At the edges the
    sequence is continued by its mirror image (c b a | a b c), so that the filter is a symmetric
    positive semidefinite matrix with rows that sum to 1: constants stay, sums stay, and a filtered
    gradient is still a direction of descent.

    Whether neighbouring features have similar gradients is an assumption about the model.
    """

    inner: OptimizerConfig

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
        """The inner optimiser, reading filtered gradients."""
        optimizer = self.inner.build(tensors, lr)

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
