"""Flat per-example clipping: every record's whole gradient is scaled to norm at most C.

Abadi et al. 2016 (arXiv 1607.00133). The norm runs over all trained coordinates together: heads,
A and B alike. Edge cases: C = inf leaves gradients alone; a zero gradient stays zero; a record
whose gradient is not finite (NaN, infinity, or a norm that overflows) contributes zero.

Shapes: n examples.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from silotune.core import Batch, Key, PerExampleGradients
from silotune.core.outer import Outer, Rows, dense

Losses = Callable[[Batch], Tensor]
"""Per-example losses (n,) of a batch under the current tensors."""


PART = 2**20
"""Numbers of rows that are rounded to the grid at a time, so that little stands beside the rows."""


def clipped_sum(
    rows: Mapping[Key, Rows], max_grad_norm: float, grid: float = 0.0
) -> tuple[dict[Key, Tensor], int]:
    """``sum_i g_i min(1, C / |g_i|)`` per tensor, and how many records were not finite.

    With a grid, every clipped coordinate is first rounded to a multiple of it, and the sums are
    exact: float64 holds sums of such multiples without rounding below 2^53 grid units.

    Args:
        rows: per-example gradients, (n, *shape) each.
        max_grad_norm: C > 0, or infinity.
        grid: a power of two; 0 for no rounding.
    """
    found = NOTHING.plus(dict(rows), 0, max_grad_norm, grid)
    return dict(found.sums), found.dropped


def clipped_sums(
    rows: Mapping[Key, Rows], owners: Tensor, max_grad_norms: Tensor, grids: Tensor
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
    factor, broken = _factors(rows, max_grad_norms[owners])
    clients = torch.arange(len(grids), device=owners.device)
    whose = owners == clients[:, None]  # (K, n)
    sums = {
        key: _sums(whose, factor, _without(r, broken), grids, owners) for key, r in rows.items()
    }
    return sums, (whose & (False if broken is None else broken)).sum(dim=1)


def _factors(
    rows: Mapping[Key, Rows], max_grad_norm: float | Tensor
) -> tuple[Tensor, Tensor | None]:
    """What each record is scaled by, (n,), and which are not finite, (n,); None if all are.

    Args:
        rows: (n, *shape) each.
        max_grad_norm: C, or that of every record, (n,).
    """
    norms = [_norms(r) for r in rows.values()]
    place, own_type = norms[0].device, next(iter(rows.values())).dtype  # layers may lie on several
    norm = torch.linalg.vector_norm(torch.stack([n.to(place) for n in norms]), dim=0)  # (n,)
    finite = norm.isfinite()
    margin = 1.0 + 32.0 * torch.finfo(own_type).eps  # parts of the norm, and products, are rounded
    factor = torch.where(finite, (max_grad_norm / (norm * margin)).clamp(max=1.0), 0.0)
    return factor.to(own_type), None if finite.all() else ~finite


def _lying(rows: Rows) -> Rows:
    """(n, *shape) as they lie in memory: matrices may have been written column by column."""
    if isinstance(rows, Outer) or rows.dim() != 3 or rows.is_contiguous():
        return rows
    return rows.mT


def _shaped(sums: Tensor, rows: Rows) -> Tensor:
    """([K,] P), in the order in which rows (n, *shape) lie, as ([K,] *shape)."""
    lying = _lying(rows)
    shaped = sums.view(*sums.shape[:-1], *lying.shape[1:])
    return shaped if lying is rows else shaped.mT.contiguous()


PIECE = 1024
"""Numbers whose norm the rows' own type can add up; longer sums come out too small, by a percent
in the end, and what is clipped to them too large."""


def _norms(rows: Rows) -> Tensor:
    """(n,) in float64: norms of pieces, added up there."""
    if isinstance(rows, Outer):
        return rows.norms()
    flat = dense(_lying(rows)).flatten(1)
    whole = flat.shape[1] - flat.shape[1] % PIECE
    pieces = (flat[:, :whole].unflatten(1, (-1, PIECE)), flat[:, None, whole:])
    norms = [torch.linalg.vector_norm(piece, dim=2).double() for piece in pieces]
    norm: Tensor = torch.linalg.vector_norm(torch.cat(norms, dim=1), dim=1)
    return norm


def _without(rows: Rows, broken: Tensor | None) -> Rows:
    """With zeros in place of the records (n,) that are broken: zero times NaN is NaN."""
    if broken is None:
        return rows
    if isinstance(rows, Outer):
        return rows.without(broken.to(rows.device))
    return rows.masked_fill(broken.to(rows.device).view(-1, *[1] * (rows.dim() - 1)), 0.0)


def _sums(whose: Tensor, factor: Tensor, rows: Rows, grids: Tensor, owners: Tensor) -> Tensor:
    """``_sum`` (K, *shape) of each client's rows."""
    if not grids.any():
        return _weighted(whose * factor, rows)
    grid, flags = grids[owners][:, None], whose.double()
    total = factor.new_zeros(len(grids), math.prod(rows.shape[1:]), dtype=torch.float64)
    for part, clipped in _clipped(rows, factor):
        total += flags[:, part] @ clipped.div_(grid[part]).round_()
    return _shaped(total.mul_(grids[:, None]), rows)


def _sum(factor: Tensor, rows: Rows, grid: float) -> Tensor:
    """``sum_i factor_i rows_i`` (*shape); in float64 and on the grid if there is one."""
    if not grid:
        return _weighted(factor, rows)
    sums = (part.div_(grid).round_().sum(dim=0) for _, part in _clipped(rows, factor))
    return _shaped(functools.reduce(Tensor.add_, sums).mul_(grid), rows)


def _weighted(weights: Tensor, rows: Rows) -> Tensor:
    """Sums of rows (..., *shape), each with its own weights (..., n)."""
    if isinstance(rows, Outer):
        return rows.weighted(weights)
    return _shaped(weights @ dense(_lying(rows)).flatten(1), rows)


def _clipped(rows: Rows, factor: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Scaled rows in float64, (m, P) as they lie, of m records at a time, and which these are."""
    lying = _lying(rows)
    size = max(1, PART // max(1, math.prod(rows.shape[1:])))
    for first in range(0, max(1, len(factor)), size):
        part = slice(first, first + size)
        some = lying.part(part).dense() if isinstance(lying, Outer) else lying[part]
        scaled = some.flatten(1) * factor[part, None]
        yield part, scaled.double()


class Accumulated(NamedTuple):
    """Clipped sums over micro-batches of one step; without any, ``NOTHING``."""

    sums: Mapping[Key, Tensor]
    examples: int
    dropped: int

    def plus(
        self, rows: dict[Key, Rows], examples: int, max_grad_norm: float, grid: float = 0.0
    ) -> Accumulated:
        """These sums with those of one more micro-batch.

        Rows are taken out of their mapping one by one, and added where the sums lie: in a large
        model either is gigabytes, and neither is needed again.

        Args:
            rows: its per-example gradients, (examples, *shape) each; empty afterwards.
            examples: its number of records.
            max_grad_norm: C.
            grid: as for ``clipped_sum``.
        """
        if not rows:
            return self._replace(examples=self.examples + examples)
        factor, broken = _factors(rows, max_grad_norm)
        sums, dropped = dict(self.sums), 0 if broken is None else int(broken.sum())
        for key in list(rows):
            own = _without(rows.pop(key), broken)
            part = _sum(factor.to(own.device), own, grid)
            sums[key] = sums[key].add_(part) if key in sums else part
        return Accumulated(sums, self.examples + examples, self.dropped + dropped)


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
        with sink.collect_rows(n) as rows:
            losses(batch).sum().backward()
            whole = whole.plus(rows, n, max_grad_norm, grid)
    return whole
