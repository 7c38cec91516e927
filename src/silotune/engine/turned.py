"""Pairs that a client turns before it sends them (FedRot-LoRA, arXiv 2602.23638).

B A = (B Q)(Q^T A) for every orthogonal Q (r, r), so clients may have learned alike and still differ
in their factors, of which the mean is taken. Each chooses the Q that brings its pair closest to the
one that the round began with, which all know: min |Q^T A - A_0| or min |B Q - B_0|, Frobenius
(orthogonal Procrustes). Nothing but what is sent anyway and the state decide it, so it costs no
privacy, and its norm stays.

Part of the way, as in the authors' code, is the orthogonal matrix nearest to (1 - share) I +
share Q, of the best proper rotation Q, det Q = 1: a reflection cannot be reached in parts.

Shapes: out, in, r rank.
"""

from __future__ import annotations

import torch
from torch import Tensor

from silotune.core import Factors, Key, Role, Turn
from silotune.linalg import dense_svd


def turned(update: Factors, start: Factors, turn: Turn) -> Factors:
    """The same products, in the basis nearest to that of the start.

    Args:
        update: what a client is about to send.
        start: what its round began with.
        turn: towards what, and how far.

    Raises:
        NumericalError: if a number is not finite.
    """
    pairs: dict[Key, Tensor] = {}
    for site in update.pair_sites():
        a, b = Key(site, Role.A), Key(site, Role.B)
        q = _turn(update, start, Key(site, turn.towards), turn.share)
        pairs[a] = (q.T @ update[a].cpu().double()).to(update[a])
        pairs[b] = (update[b].cpu().double() @ q).to(update[b])
    return update.updated(pairs)


def _turn(update: Factors, start: Factors, key: Key, share: float) -> Tensor:
    """Q (r, r), float64."""
    x, y = update[key].cpu().double(), start[key].cpu().double()
    alike = x @ y.T if key.role is Role.A else x.T @ y
    if not alike.any():  # as where B is still 0: nothing says where to turn
        return torch.eye(len(alike), dtype=torch.float64)
    u, _, v = dense_svd(alike)
    if share == 1.0:
        return u @ v
    if torch.linalg.det(u @ v) < 0.0:
        v = torch.cat([v[:-1], -v[-1:]])
    u, _, v = dense_svd((1.0 - share) * torch.eye(len(u), dtype=u.dtype) + share * u @ v)
    return u @ v
