"""Flat per-example clipping: every record's whole gradient is scaled to norm at most C.

Abadi et al. 2016 (arXiv 1607.00133). The norm runs over all trained coordinates together: heads,
A and B alike. Edge cases: C = inf leaves gradients alone; a zero gradient stays zero; a record
whose gradient is not finite (NaN, infinity, or a norm that overflows) contributes zero.

Shapes: n examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from silotune.core import Batch, Key, PerExampleGradients

Losses = Callable[[Batch], Tensor]
"""Per-example losses (n,) of a batch under the current tensors."""


def clipped_sum(
    rows: Mapping[Key, Tensor], max_grad_norm: float, grid: float = 0.0
) -> tuple[dict[Key, Tensor], int]:
    """``sum_i g_i min(1, C / |g_i|)`` per tensor, and how many records were not finite.

    With a grid, every clipped coordinate is first rounded to a multiple of it, and the sums are
    exact: float64 holds sums of such multiples without rounding below 2^53 grid units.

    Args:
        rows: per-example gradients, (n, *shape) each.
        max_grad_norm: C > 0, or infinity.
        grid: a power of two; 0 for no rounding.
    """
    flat, factor, finite = _bounded(rows, max_grad_norm)
    sums = {key: _shaped(_sum(factor, r, grid), rows[key]) for key, r in flat.items()}
    return sums, int((~finite).sum())


def clipped_sums(
    rows: Mapping[Key, Tensor], owners: Tensor, max_grad_norms: Tensor, grids: Tensor
) -> tuple[dict[Key, Tensor], Tensor]:
    """The clipped sum of each of K clients, whose records went through a model together.

    Args:
        rows: per-example gradients, (n, *shape) each.
        owners: (n,) the place of each record's client.
        max_grad_norms: (K,) of each client, as for ``clipped_sum``.
        grids: (K,), likewise; all 0, or none.

    Returns:
        Sums, (K, *shape) each, and of each client how many records were not finite, (K,).
    """
    flat, factor, finite = _bounded(rows, max_grad_norms[owners])
    clients = torch.arange(len(grids), device=owners.device)
    whose = owners == clients[:, None]  # (K, n)
    sums = {
        key: _shaped(_sums(whose, factor, r, grids, owners), rows[key]) for key, r in flat.items()
    }
    return sums, (whose & ~finite).sum(dim=1)


def _bounded(
    rows: Mapping[Key, Tensor], max_grad_norm: float | Tensor
) -> tuple[dict[Key, Tensor], Tensor, Tensor]:
    """Rows (n, P) with zeros for what is not finite, what each is scaled by, and which are finite.

    Args:
        rows: (n, *shape) each.
        max_grad_norm: C, or that of every record, (n,).
    """
    flat = {key: _lying(r).flatten(1) for key, r in rows.items()}
    norms = torch.stack([torch.linalg.vector_norm(r, dim=1) for r in flat.values()])
    norm = torch.linalg.vector_norm(norms, dim=0)  # (n,)
    finite = norm.isfinite()
    margin = 1.0 + 32.0 * torch.finfo(norm.dtype).eps  # the norm itself is rounded
    factor = torch.where(finite, (max_grad_norm / (norm * margin)).clamp(max=1.0), 0.0)
    if not finite.all():  # zero times NaN is NaN
        flat = {key: r.masked_fill(~finite[:, None], 0.0) for key, r in flat.items()}
    return flat, factor, finite


def _lying(rows: Tensor) -> Tensor:
    """(n, *shape) as they lie in memory: matrices may have been written column by column."""
    return rows.mT if rows.dim() == 3 and not rows.is_contiguous() else rows


def _shaped(sums: Tensor, rows: Tensor) -> Tensor:
    """([K,] P), in the order in which rows (n, *shape) lie, as ([K,] *shape)."""
    lying = _lying(rows)
    shaped = sums.view(*sums.shape[:-1], *lying.shape[1:])
    return shaped if lying is rows else shaped.mT.contiguous()


def _sums(whose: Tensor, factor: Tensor, rows: Tensor, grids: Tensor, owners: Tensor) -> Tensor:
    """``_sum`` (K, P) of each client's rows, as one product."""
    if not grids.any():
        return (whose * factor) @ rows
    grid = grids[owners][:, None]
    clipped = (rows * factor[:, None]).double().div_(grid).round_()
    return (whose.double() @ clipped).mul_(grids[:, None])


def _sum(factor: Tensor, rows: Tensor, grid: float) -> Tensor:
    """``sum_i factor_i rows_i`` (P,); in float64 and on the grid if there is one."""
    if not grid:
        return factor @ rows
    clipped = rows * factor[:, None]
    return clipped.double().div_(grid).round_().sum(dim=0).mul_(grid)


class Accumulated(NamedTuple):
    """Clipped sums over micro-batches of one step; without any, ``NOTHING``."""

    sums: Mapping[Key, Tensor]
    examples: int
    dropped: int

    def plus(
        self, rows: Mapping[Key, Tensor], examples: int, max_grad_norm: float, grid: float = 0.0
    ) -> Accumulated:
        """These sums with those of one more micro-batch.

        Args:
            rows: its per-example gradients, (examples, *shape) each.
            examples: its number of records.
            max_grad_norm: C.
            grid: as for ``clipped_sum``.
        """
        part, bad = clipped_sum(rows, max_grad_norm, grid) if rows else ({}, 0)
        added = {key: t + self.sums[key] if key in self.sums else t for key, t in part.items()}
        return Accumulated({**self.sums, **added}, self.examples + examples, self.dropped + bad)


NOTHING = Accumulated({}, 0, 0)


def accumulate(
    sink: PerExampleGradients,
    losses: Losses,
    micro_batches: Iterable[Batch],
    max_grad_norm: float,
    grid: float = 0.0,
) -> Accumulated:
    """One backward pass a micro-batch; the clipped sums add up to those of the whole batch.

    Args:
        sink: closed.
        losses: per example.
        micro_batches: of one step.
        max_grad_norm: C.
        grid: as for ``clipped_sum``.
    """
    whole = NOTHING
    for batch in micro_batches:
        n = len(batch["labels"])
        with sink.collect(n) as rows:
            losses(batch).sum().backward()
            whole = whole.plus(rows, n, max_grad_norm, grid)
    return whole
