"""What routers share: whom they decide for, what they read, and where their gradients go.

A router belongs to the first adapted site of its transformer layer and reads what that site reads;
the other adapted sites of the layer follow its decision. It looks at a record's prompt once: at all
tokens of a text to classify, at what comes before the first learned token of a text to continue (at
its first token, if all are learned), never at padding. In generation the prompt is decided upon and
the later tokens follow, as long as a cache spares the model the prompt; without one, every step is
decided anew.

Nearly all of a router is linear maps, whose rows come from the common kernel. The few numbers that
are not are expanded, one copy a record, and the copies' gradients are their rows.

Shapes: n examples, T positions, d features of what a router reads, N experts, in, out.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Context, GradientSink, Key, Site, place_of

from .kernels import rows_expanded, rows_linear


def blocks(sites: Sequence[Site]) -> dict[str, list[Site]]:
    """Sites by transformer layer, in order; those that are in none together, under no name."""
    found: dict[str, list[Site]] = {}
    for site in sites:
        place = place_of(site.name)
        found.setdefault(f"{place.stack}.{place.layer}" if place else "", []).append(site)
    return found


class Decision:
    """What a layer's router gives to the layer's sites, by way of the context.

    Outside training it is kept for the passes that go on with the same prompt.
    """

    def __init__(self, block: str, context: Context) -> None:
        self.block, self._context = block, context
        self._kept: Tensor | None = None  # (n, N)

    def leave(self, gates: Tensor, *, keep: bool) -> None:
        """Note the gates (n, N) of this forward pass."""
        self._context.notes["gates", self.block] = gates
        self._kept = gates.detach() if keep else None

    def go_on(self, x: Tensor) -> bool:
        """Note the kept gates again, if ``x`` (n, T, d) is not a prompt but what follows one.

        Raises:
            ValueError: if the prompt was another one.
        """
        mask = self._context.mask
        if mask is None or x.dim() < 3 or x.shape[1] >= mask.shape[1]:
            return False
        if self._kept is None or len(self._kept) != len(x):
            raise ValueError("tokens that follow a prompt cannot be routed before the prompt is")
        self._context.notes["gates", self.block] = self._kept
        return True

    def gates(self) -> Tensor:
        """(n, N), as the layer's router left them.

        Raises:
            ValueError: if it has not run.
        """
        gates = self._context.notes.get(("gates", self.block))
        if gates is None:
            raise ValueError(
                f"method.target_modules: in {self.block or 'this model'} the first adapted module "
                "is not the first to be used, so its router decides too late; adapt others"
            )
        return gates


def prompt(context: Context, x: Tensor) -> Tensor:
    """(n, T): which positions of ``x`` (n, T, d) a router may look at; one at least.

    Raises:
        ValueError: if the mask is not that of ``x``.
    """
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


def mapped(x: Tensor, weight: nn.Parameter, sink: GradientSink, key: Key) -> Tensor:
    """``x W^T`` (n, ..., out); the rows of W go to the sink while it is open."""
    if sink.is_open and weight.requires_grad:
        return rows_linear(x, weight, None, 1.0, sink, [key])
    return F.linear(x, weight)


def expanded(parameter: nn.Parameter, n: int, sink: GradientSink, key: Key) -> Tensor:
    """(n, *shape): a copy for every record; while the sink is open, their gradients are rows."""
    if sink.is_open and parameter.requires_grad:
        return rows_expanded(parameter, n, sink, key)
    return parameter.expand(n, *parameter.shape)
