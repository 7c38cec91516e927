"""LoRA (Hu et al. 2021, arXiv 2106.09685): a pair B A beside a frozen matrix, B = 0 at birth.

PiSSA (Meng et al. 2024, arXiv 2404.02948) and OLoRA (Buyukakyuz 2024, arXiv 2406.01775) begin at a
part of the weight itself, ``scale B_0 A_0``, and take it out of the base, which every machine
computes from its own copy of the public weights:

    y = (W - scale B_0 A_0) x + scale B A x

so that the first model is the base, and what is learned is B A - B_0 A_0.

With A frozen this is the adapter of FFA-LoRA (Sun et al. 2024, arXiv 2403.12313): the update moves
by ``-eta scale^2 G A^T A``, so rows of norm 1 (orthonormal, svd) mean a learning rate three times
that of Kaiming-uniform rows (A A^T about I/3). Tune it again when the initialisation changes.

Shapes: out, in, r rank.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

import torch
from torch import Tensor

from silotune.core import Context, Factors, PerExampleGradients, Role, Site, generator
from silotune.core.folding import accumulated
from silotune.linalg import LowRank, Matrix, Spectrum, orthonormal_rows, qr

from .base import NO_DROPOUT, Adapter, Layer, check_pair, pair_scale
from .linear import AdaptedLinear
from .once import once_a_site
from .principal import principal


class Init(StrEnum):
    """How A begins."""

    KAIMING = "kaiming"  # U(-1/sqrt(in), 1/sqrt(in)), as in the paper and in PEFT
    ORTHONORMAL = "orthonormal"  # A A^T = I
    SVD = (
        "svd"  # top r right singular vectors of the public base weight (PiSSA's directions, B = 0)
    )
    PISSA = "pissa"  # its top r singular triples, with the roots of the singular values in each
    OLORA = "olora"  # the first r columns of Q and rows of R of its QR decomposition

    @property
    def in_weight(self) -> bool:
        """Whether a pair begins as a part of the base weight, which the base then lacks."""
        return self in (Init.PISSA, Init.OLORA)


@dataclass(frozen=True, kw_only=True)
class LoRA(Adapter):
    """``y = W x + scale B A x`` with scale = alpha/r, or alpha/sqrt(r) (rsLoRA, arXiv 2312.03732).

    Raises:
        ValueError: if the rank is not positive or the dropout not in [0, 1).
    """

    per_example_safe: ClassVar[bool] = True  # a matrix product of every record's own
    whole_pair: ClassVar[bool] = True
    multilinear: ClassVar[bool] = True
    fits_peft: ClassVar[bool] = True
    recomputable: ClassVar[bool] = True
    no_start_because: ClassVar[str] = (
        "init_lora_weights pissa and olora begin at a part of the base weight, not at an adapter"
    )

    rank: int = 8
    alpha: float = 8.0
    dropout: float = 0.0
    rslora: bool = False
    init: Init = Init.KAIMING

    def __post_init__(self) -> None:
        check_pair(self.rank, self.dropout)

    @property
    def crowdable(self) -> bool:
        """Without dropout: its coins are a client's own, and torch has one stream of them."""
        return not self.dropout

    @property
    def not_crowdable_because(self) -> str:
        """That it drops inputs."""
        return NO_DROPOUT

    @property
    def scale(self) -> float:
        """What the adapted layer multiplies B A by."""
        return pair_scale(self.alpha, self.rank, self.rslora)

    @property
    def seeded(self) -> bool:
        """What is computed from a weight differs between machines in its last bits."""
        return self.init in (Init.KAIMING, Init.ORTHONORMAL)

    @property
    def foldable(self) -> bool:
        """Unless it begins in the weight: a fresh pair would be taken out of the base again."""
        return not self.init.in_weight

    @property
    def starts_from_pairs(self) -> bool:
        """Unless it begins in the weight."""
        return not self.init.in_weight

    @property
    def serves_experts(self) -> bool:
        """Unless it begins in the weight."""
        return not self.init.in_weight

    @property
    def own_layer_only(self) -> bool:
        """Unless it begins in the weight, so that B A is not what is learned."""
        return not self.init.in_weight

    def layers(
        self, sites: Sequence[Site], sink: PerExampleGradients, context: Context
    ) -> Mapping[str, Layer]:
        """Pairs beside their bases, or beside what is left of these."""
        born = self._born(sites)
        return {
            s.name: AdaptedLinear(s, self.scale, self.rank, self.dropout, sink, born.get(s.name))
            for s in sites
        }

    def into_base(
        self, sites: Sequence[Site], factors: Factors, folded: Mapping[str, Matrix]
    ) -> Mapping[str, Matrix]:
        """Without the parts of the weight that pairs began at: a plain pair has the whole base."""
        return accumulated(folded, {name: pair * -1.0 for name, pair in self._born(sites).items()})

    def out_of_base(
        self, sites: Sequence[Site], folded: Mapping[str, Matrix]
    ) -> Mapping[str, Matrix]:
        """With them: what a plain pair left in the base is beside what is left of that here."""
        return accumulated(folded, self._born(sites))

    def _born(self, sites: Sequence[Site]) -> dict[str, LowRank]:
        """B_0 A_0 (out, in) by site, unscaled; none unless it begins in the weight."""
        return {s.name: self._part(s) for s in sites} if self.init.in_weight else {}

    def frozen(self, site: Site) -> frozenset[Role]:
        """None: the schedule decides."""
        return frozenset()

    def initial_factors(self, site: Site, seed: int) -> Mapping[Role, Tensor]:
        """A (r, in) and B (out, r), float32 on the CPU, from (seed, site) or the weight alone."""
        if self.init.in_weight:
            part = self._part(site)
            return {Role.A: part.right.clone(), Role.B: part.left.clone()}
        return {
            Role.A: self._a(site, generator(seed, "A", site.name)),
            Role.B: torch.zeros(site.out_features, self.rank, dtype=torch.float32),
        }

    @once_a_site
    def _part(self, site: Site) -> LowRank:
        """The part of the base weight that the pair begins at, divided by the scale; float32.

        PiSSA divides the singular values by the scale, so that the part is their own. OLoRA takes
        ``scale Q R``, as PEFT has it.
        """
        if self.init is Init.PISSA:
            found = principal(site, self.rank)
            part = Spectrum(found.left, found.values / self.scale, found.right).balanced()
            return part.to(torch.float32)
        most = min(site.in_features, site.out_features)
        if self.rank > most:
            raise ValueError(
                f"r: {site.name} has only {most} columns in Q, fewer than r = {self.rank}"
            )
        q, r = qr(site.weight().detach().double().cpu())
        return LowRank(q[:, : self.rank].float(), r[: self.rank].float())

    def _a(self, site: Site, g: torch.Generator) -> Tensor:
        match self.init:
            case Init.KAIMING:
                bound = 1.0 / math.sqrt(site.in_features)
                shape = (self.rank, site.in_features)
                return torch.rand(shape, generator=g, dtype=torch.float32) * (2 * bound) - bound
            case Init.ORTHONORMAL:
                return orthonormal_rows(self.rank, site.in_features, g)
            case _:
                return principal(site, self.rank).right.float().contiguous()


def refuse_in_weight(init: Init) -> None:
    """For adapters in which a pair does not stand beside its own base alone.

    Raises:
        ValueError: if the pair begins as a part of that base.
    """
    if init.in_weight:
        raise ValueError(
            f"init_lora_weights: {init.value} takes a pair out of the base beside which it "
            "trains alone; use kaiming, orthonormal or svd"
        )
