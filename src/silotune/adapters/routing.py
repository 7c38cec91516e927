"""What routers share: whom they decide for, what they read, and where their gradients go.

A router reads what the adapted site of its transformer layer reads that is used first; the others
follow its decision. It looks at a record's prompt once: at all tokens of a text to classify, at
what comes before the first learned token of a text to continue (at its first token, if all are
learned), never at padding. In generation the prompt is decided upon and the later tokens follow, as
long as they go on with the prompt's cache; without one, every step is decided anew.

Nearly all of a router is linear maps, whose rows come from the common kernel. The few numbers that
are not are expanded, one copy a record, and the copies' gradients are their rows.

Shapes: n examples, T positions, d features of what a router reads, N experts, in, out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Context, Key, PerExampleGradients, Site, place_of

from .kernels import rows_expanded, rows_linear


def blocks(sites: Sequence[Site]) -> dict[str, list[Site]]:
    """Sites by transformer layer, in order; those that are in none together, under no name."""
    found: dict[str, list[Site]] = {}
    for site in sites:
        place = place_of(site.name)
        found.setdefault(f"{place.stack}.{place.layer}" if place else "", []).append(site)
    return found


class Decision:
    """What a layer's router decides for the layer's sites, by way of the context.

    The site that is used first brings what the router reads. Where a model uses a layer again in
    the same pass, it is decided again. Passes that go on with a cache follow what was decided for
    its prompt.
    """

    def __init__(
        self, block: str, first: Site, router: Callable[[Tensor], Tensor], context: Context
    ) -> None:
        self.block, self._features = block, first.in_features
        self._router, self._context = router, context

    def gates(self, site: str, x: Tensor) -> Tensor:
        """(n, N), for the site that reads ``x`` (n, T, d).

        Raises:
            ValueError: if the prompt was never seen, or was another one.
        """
        if not self._context.follows:
            self._decide(site, x)
        gates = self._context.lasting.get(("gates", self.block))
        if gates is None or len(gates) != len(x):
            raise ValueError("tokens that follow a prompt cannot be routed before the prompt is")
        return gates

    def _decide(self, site: str, x: Tensor) -> None:
        served = self._context.served.setdefault(self.block, set())
        if not served or site in served:
            if x.shape[-1] != self._features:
                raise ValueError(
                    f"target_modules: the router of {self.block or 'this model'} reads "
                    f"{self._features} features, and {site}, which is used first, has "
                    f"{x.shape[-1]}; adapt others"
                )
            served.clear()
            self._context.lasting["gates", self.block] = self._router(x)
        served.add(site)


def prompt(context: Context, x: Tensor) -> Tensor:
    """(n, T): which positions of ``x`` (n, T, d) a router may look at; one at least.

    Raises:
        ValueError: if the mask is not that of ``x``, or does not tell what is padding.
    """
    if context.divided:
        raise ValueError(
            "a router decides by one row of positions, and a model with an encoder and a decoder "
            "has two; take a method without routers"
        )
    if context.opaque:
        raise ValueError(
            "a router must know what is padding: give the model an attention_mask (n, T) of 0 and "
            "1, and generate with a dynamic cache"
        )
    if context.mask is None or x.dim() == 2:
        mask = torch.ones(x.shape[:-1], dtype=torch.bool, device=x.device)
    else:
        mask = context.mask.bool()
    if mask.shape != x.shape[:-1]:
        raise ValueError(
            f"a router needs one row of positions a record, as in the mask {tuple(mask.shape)}, "
            f"but its layer saw {tuple(x.shape[:-1])}"
        )
    if context.prompt is None or x.dim() == 2:
        return mask
    first = mask & (mask.cumsum(dim=1) == 1)
    return (mask & context.prompt) | first


def mapped(x: Tensor, weight: nn.Parameter, sink: PerExampleGradients, key: Key) -> Tensor:
    """``x W^T`` (n, ..., out); the rows of W go to the sink while it is open."""
    if sink.is_open and weight.requires_grad:
        return rows_linear(x, weight, None, 1.0, sink, [key])
    return F.linear(x, weight)


def expanded(parameter: nn.Parameter, n: int, sink: PerExampleGradients, key: Key) -> Tensor:
    """(n, *shape): a copy for every record; while the sink is open, their gradients are rows."""
    if sink.is_open and parameter.requires_grad:
        return rows_expanded(parameter, n, sink, key)
    return parameter.expand(n, *parameter.shape)
