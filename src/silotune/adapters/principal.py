"""The principal singular vectors of a public base weight, from which pairs may begin.

Shapes: out, in = features of a site, r rank.
"""

from __future__ import annotations

from silotune.core import Site
from silotune.linalg import NumericalError, Spectrum, dense_svd


def principal(site: Site, rank: int) -> Spectrum:
    """The leading singular triples of the base weight (out, in), float64 on the CPU.

    Each right vector is signed so that its largest entry is positive, its left one with it; last
    bits differ between machines.

    Raises:
        ValueError: if there are fewer than ``rank``, or the weight has no SVD.
    """
    most = min(site.in_features, site.out_features)
    if rank > most:
        raise ValueError(f"r: {site.name} has only {most} singular vectors, fewer than r = {rank}")
    weight = site.weight().detach().double().cpu()
    try:
        u, s, v = dense_svd(weight)
    except NumericalError as error:
        raise ValueError(f"{site.name}: the base model's weight has no SVD: {error}") from error
    u, s, v = u[:, :rank], s[:rank], v[:rank]
    sign = v.gather(1, v.abs().argmax(dim=1, keepdim=True)).sign()
    return Spectrum(u * sign.T, s, v * sign)
