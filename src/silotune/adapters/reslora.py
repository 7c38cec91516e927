"""ResLoRA (Shi et al. 2024, arXiv 2402.18039): shortcuts between the pairs of consecutive layers.

A site n is linked to the sites of the same name in the layers n-1, n-2, ... before it, as long as
these are adapted and of equal shape. There are LoRA's tensors and no others; with x_n what site n
reads and s the scale,

    input:   h_n = W_n x_n + s B_n A_n (x_n + x_{n-1})
    block:   h_n = W_n x_n + s sum_{k=0..p} B_{n-k} A_{n-k} x_n
    middle:  h_n = W_n x_n + s B_n (A_n x_n + sum_{k=1..p} A_{n-k} x_{n-k})

p = ``pre_num`` layers back, fewer at the start of the model; ``input`` reaches one. A site without
a predecessor is plain LoRA (the released code doubles x_0 there). Dropout is drawn for each use.

A pair is used by several sites, or several times by its own: rows of every use are summed in the
sink before anything is clipped.

**Merging.** ``block`` merges exactly: W_n + s sum_k B_{n-k} A_{n-k}. The others read what other
layers read, and no weight of layer n does that. The paper puts a_k x_n in the place of x_{n-k}:

    input:   W_n + (1 + a_1) s B_n A_n          middle:  W_n + s B_n (A_n + sum_k a_k A_{n-k})

which ``straighten`` does; where a_k comes from is said in ``adapters.straightening``.

``input`` and ``middle`` need every layer once in a forward pass, in order: gradient checkpointing
computes layers again and is refused. Generation with a cache of keys and values works: all layers
see the same new positions.

Shapes: n examples, T positions, out, in, r rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from silotune.core import Context, Factors, Key, PerExampleGradients, Role, Site
from silotune.core.folding import accumulated
from silotune.core.site import place_of
from silotune.linalg import Matrix

from .base import Adapter, Layer
from .kernels import rows_linear
from .linear import AdaptedLinear
from .lora import LoRA, refuse_in_weight


class Shortcut(StrEnum):
    """What a layer takes from the layers before it."""

    INPUT = "input"  # what the one before it read
    BLOCK = "block"  # their pairs
    MIDDLE = "middle"  # their A x


@dataclass(frozen=True, kw_only=True)
class ResLoRA(Adapter):
    """LoRA with shortcuts; every tensor is as LoRA has it.

    Attributes:
        pair: what stands beside every base.
        shortcut: the kind.
        pre_num: how many layers back it reaches; 0 is LoRA.

    Raises:
        ValueError: if it reaches too far.
    """

    per_example_safe: ClassVar[bool] = True
    own_layer_only: ClassVar[bool] = False  # a block shortcut uses it in later layers as well
    no_start_because: ClassVar[str] = (
        "shortcuts use a pair in other layers too, for which it was not trained, so that the run "
        "would not begin with what the adapter computes"
    )

    pair: LoRA = field(default_factory=LoRA)
    shortcut: Shortcut = Shortcut.BLOCK
    pre_num: int = 1

    def __post_init__(self) -> None:
        refuse_in_weight(self.pair.init)
        if self.pre_num < 0:
            raise ValueError(f"pre_num: must be at least 0, not {self.pre_num}")
        if self.shortcut is Shortcut.INPUT and self.pre_num > 1:
            raise ValueError(
                "pre_num: the input shortcut reaches one layer back and no further; leave "
                "it out, or set shortcut to block or middle"
            )

    @property
    def pairs_like(self) -> LoRA:
        """The pair of every site."""
        return self.pair

    @property
    def fits_peft(self) -> bool:
        """Whether every layer is a weight of its own, so that it can be merged as it is."""
        return self.shortcut is Shortcut.BLOCK or self.pre_num == 0

    @property
    def estimable(self) -> bool:
        """Whatever does not fit: ``adapters.straightening``."""
        return not self.fits_peft

    @property
    def recomputable(self) -> bool:
        """Unless layers keep for later ones what they read or made of it."""
        return self.fits_peft

    @property
    def not_recomputable_because(self) -> str:
        """Which shortcut it is."""
        return f"the {self.shortcut.value} shortcut cannot follow, as shortcut: block could"

    def check_sites(self, sites: Sequence[Site]) -> None:
        """That there is something to link.

        Raises:
            ValueError: if there is not.
        """
        if not any(links(sites, self.pre_num).values()):
            raise ValueError(
                "shortcut: no adapted module stands right after one of the same name and "
                "shape, in the layer before its own, so there is nothing to link; adapt others, or "
                "use method: fedit"
            )

    def into_base(
        self, sites: Sequence[Site], factors: Factors, folded: Mapping[str, Matrix]
    ) -> Mapping[str, Matrix]:
        """What plain LoRA must have in its base to compute what block shortcuts do."""
        assert self.fits_peft, "the layers do not stand alone"
        for name, earlier in links(sites, self.pre_num).items():
            for before in earlier:
                folded = accumulated(folded, {name: factors.pair(before)})
        return folded

    def frozen(self, site: Site) -> frozenset[Role]:
        """None: the schedule decides."""
        return frozenset()

    def initial_factors(self, site: Site, seed: int) -> Mapping[Role, Tensor]:
        """LoRA's: B = 0 (out, r) and A (r, in), float32 on the CPU."""
        return self.pair.initial_factors(site, seed)

    def layers(
        self, sites: Sequence[Site], sink: PerExampleGradients, context: Context
    ) -> Mapping[str, Layer]:
        """Pairs beside their bases, linked."""
        own = {s.name: AdaptedLinear(s, self.scale, self.rank, self.dropout, sink) for s in sites}
        earlier = links(sites, self.pre_num)
        read = {name for names in earlier.values() for name in names}
        return {
            name: ResLinear(
                name=name,
                own=layer,
                earlier={before: own[before] for before in earlier[name]},
                is_read=name in read,
                shortcut=self.shortcut,
                sink=sink,
                context=context,
            )
            for name, layer in own.items()
        }


def links(sites: Sequence[Site], reach: int) -> dict[str, tuple[str, ...]]:
    """By site, those it is linked to: same name, layers right before its own, equal shapes.

    Args:
        sites: all adapted ones.
        reach: how many layers back at most.

    Returns:
        Names, the nearest first; empty where there is none.
    """
    at = {place: site for site in sites if (place := place_of(site.name))}
    found: dict[str, tuple[str, ...]] = {}
    for site in sites:
        place, chain = place_of(site.name), list[str]()
        while place is not None and len(chain) < reach:
            place = place._replace(layer=place.layer - 1)
            before = at.get(place)
            if before is None or _shape(before) != _shape(site):
                break
            chain.append(before.name)
        found[site.name] = tuple(chain)
    return found


class ResLinear(nn.Module):
    """One site with its pair and its shortcut. Replaces the base module inside the model."""

    def __init__(
        self,
        *,
        name: str,
        own: AdaptedLinear,
        earlier: Mapping[str, AdaptedLinear],
        is_read: bool,
        shortcut: Shortcut,
        sink: PerExampleGradients,
        context: Context,
    ) -> None:
        super().__init__()
        self.own = own
        self._earlier = tuple(earlier.items())  # a tuple: these modules belong to other places
        self._name = name
        self._is_read = is_read
        self._shortcut = shortcut
        self._sink = sink
        self._context = context
        self._straight: tuple[float, ...] = ()  # a_k, once there is no shortcut any more

    @property
    def base(self) -> nn.Module:
        """The frozen base."""
        return self.own.base

    @property
    def transposed(self) -> bool:
        """Whether its weight is stored as (in, out)."""
        return self.own.transposed

    @property
    def weight(self) -> Tensor:
        """The base weight, for models that look at their layers' weights."""
        return self.own.weight

    @property
    def bias(self) -> Tensor | None:
        """The base bias, likewise."""
        return self.own.bias

    @property
    def reads(self) -> tuple[str, ...]:
        """The layers whose input or A x it takes, the nearest first; none of a block shortcut."""
        linked = () if self._shortcut is Shortcut.BLOCK else self._earlier
        return tuple(name for name, _ in linked)

    def tensors(self) -> dict[Key, nn.Parameter]:
        """The pair by key."""
        return self.own.tensors()

    def fold(self, matrix: Matrix | None) -> None:
        """Set F (out, in), unscaled; no other layer sees it."""
        self.own.fold(matrix)

    def delta(self) -> Tensor:
        """All that the layer adds to its base weight (out, in), scaled.

        Raises:
            ValueError: if it reads what other layers read.
        """
        own = self.own.delta()
        if not self._earlier:
            return own
        if self._shortcut is Shortcut.BLOCK:
            return own + torch.stack([_product(p.B, p.A, p.scale) for _, p in self._earlier]).sum(0)
        if not self._straight:
            raise ValueError(
                f"shortcut: {self._name} reads what other layers read "
                f"({self._shortcut.value}), so no weight of its own computes the same"
            )
        return own + _product(self.own.B, self._straightened(), self.own.scale)

    def straighten(self, ratios: Sequence[float]) -> None:
        """Put a_k x_n in the place of x_{n-k}: an approximation, after which it can be merged.

        Args:
            ratios: a_k of every layer in ``reads``.
        """
        assert len(ratios) == len(self.reads), "a ratio for each layer that is read"
        self._straight = tuple(ratios)

    def _straightened(self) -> Tensor:
        """The A (r, in) that stands in a shortcut's place."""
        read = [self.own if self._shortcut is Shortcut.INPUT else pair for _, pair in self._earlier]
        weighed = [a * p.A.detach() for a, p in zip(self._straight, read, strict=True)]
        return torch.stack(weighed).sum(dim=0)

    def forward(self, x: Tensor) -> Tensor:
        """(n, ..., in) to (n, ..., out).

        Raises:
            ValueError: if the layers are not used one after the other, each once.
        """
        y: Tensor = self.own(x)
        if self._straight:
            a = self._straightened()
            return y + self._up(self.own, F.linear(x.to(a.dtype), a)).to(y.dtype)
        match self._shortcut:
            case Shortcut.BLOCK:
                added = [self._through(pair, x) for _, pair in self._earlier]
            case Shortcut.INPUT:
                self._note(x)
                added = [
                    self._through(self.own, self._noted(before)) for before, _ in self._earlier
                ]
            case Shortcut.MIDDLE:
                if self._is_read:
                    self._note(self._down(self.own, x))
                z = [self._noted(before) for before, _ in self._earlier]
                added = [self._up(self.own, torch.stack(z).sum(dim=0))] if z else []
        return y + torch.stack(added).sum(dim=0).to(y.dtype) if added else y

    def _note(self, t: Tensor) -> None:
        """Leave something for the layers that come after."""
        if not self._is_read:
            return
        if (self._shortcut, self._name) in self._context.notes:
            raise ValueError(
                f"shortcut: {self._name} is computed twice in one forward pass (gradient "
                f"checkpointing does so), which the {self._shortcut.value} shortcut cannot follow; "
                "take block, or set gradient_checkpointing to none"
            )
        self._context.notes[self._shortcut, self._name] = t

    def _noted(self, before: str) -> Tensor:
        """What an earlier layer left."""
        note = self._context.notes.get((self._shortcut, before))
        if note is None:
            raise ValueError(
                f"shortcut: {self._name} is used before {before}, so there is nothing to "
                "take from it; take block, or adapt others by target_modules"
            )
        return note

    def _through(self, pair: AdaptedLinear, x: Tensor) -> Tensor:
        """``s B A x`` (n, ..., out), in the pair's own precision."""
        return self._up(pair, self._down(pair, x))

    def _down(self, pair: AdaptedLinear, x: Tensor) -> Tensor:
        """``A x`` (n, ..., r)."""
        dropout = self.own.dropout if self.training and self._sink.is_open else 0.0
        dropped = F.dropout(x, dropout) if dropout else x
        return self._mapped(dropped.to(pair.A.dtype), pair, Role.A, 1.0)

    def _up(self, pair: AdaptedLinear, z: Tensor) -> Tensor:
        """``s B z`` (n, ..., out)."""
        return self._mapped(z, pair, Role.B, pair.scale)

    def _mapped(self, x: Tensor, pair: AdaptedLinear, role: Role, scale: float) -> Tensor:
        [(key, weight)] = [(k, p) for k, p in pair.tensors().items() if k.role is role]
        if self._sink.is_open and weight.requires_grad:
            return rows_linear(x, weight, None, scale, self._sink, [key], pair.records)
        y = F.linear(x, weight)
        return y if scale == 1.0 else y * scale


def _product(b: Tensor, a: Tensor, scale: float) -> Tensor:
    """``s B A`` (out, in)."""
    return scale * (b.detach() @ a.detach())


def _shape(site: Site) -> tuple[int, int]:
    return site.out_features, site.in_features
