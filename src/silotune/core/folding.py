"""Folding: what has been added to the frozen base so far, kept as products while that is smaller.

It is never rounded into the base. The server and whoever holds the state of the round before add a
round's increment by the same function, so that they hold the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from silotune.linalg import LowRank, Matrix, add

from .factors import Factors, Key, Role

_LEFT, _RIGHT, _WHOLE = "left", "right", "whole"


def accumulated(
    folded: Mapping[str, Matrix], increment: Mapping[str, Matrix]
) -> Mapping[str, Matrix]:
    """The sum, site by site."""
    both = {site: add(folded[site], m) for site, m in increment.items() if site in folded}
    return {**folded, **increment, **both}


def tensors_of(folded: Mapping[str, Matrix], prefix: str = "") -> Factors:
    """A fold as named tensors, for a message or a file.

    Args:
        folded: by site.
        prefix: of the names, to tell several folds apart.
    """
    tensors: dict[Key, Tensor] = {}
    for site, matrix in folded.items():
        parts = (
            {_LEFT: matrix.left, _RIGHT: matrix.right}
            if isinstance(matrix, LowRank)
            else {_WHOLE: matrix}
        )
        tensors |= {Key(site, Role.D, prefix + part): t for part, t in parts.items()}
    return Factors(tensors)


def folded_of(tensors: Factors, prefix: str = "") -> Mapping[str, Matrix]:
    """The fold among ``tensors``; all others are left alone."""

    def part(site: str, name: str) -> Key:
        return Key(site, Role.D, prefix + name)

    products = {
        key.site: LowRank(t, tensors[part(key.site, _RIGHT)])
        for key, t in tensors.items()
        if key == part(key.site, _LEFT)
    }
    whole = {key.site: t for key, t in tensors.items() if key == part(key.site, _WHOLE)}
    return {**products, **whole}
