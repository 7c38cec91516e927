"""What an adapter is: which tensors exist at a site, how they begin, and their one scale."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Protocol

from torch import Tensor, nn

from silotune.core import Context, Factors, Key, PerExampleGradients, Role, Site
from silotune.linalg import Matrix

NO_DROPOUT = "lora_dropout draws for one client after the other, so that none can train together"
"""Why a plain pair that drops inputs is not ``crowdable``."""


class Layer(Protocol):
    """What takes a site's place inside the model. It never writes to the base."""

    @property
    def base(self) -> nn.Module:
        """The module whose place it took."""
        ...

    @property
    def transposed(self) -> bool:
        """Whether the base weight is stored as (in, out)."""
        ...

    @property
    def weight(self) -> Tensor:
        """The base weight, as it is stored."""
        ...

    def tensors(self) -> dict[Key, nn.Parameter]:
        """What may train, by key."""
        ...

    def fold(self, matrix: Matrix | None) -> None:
        """Set what earlier rounds added to the base (out, in), unscaled; None for nothing."""
        ...

    def delta(self) -> Tensor:
        """All that the layer adds to the base weight (out, in), scaled."""
        ...


class Adapter(Protocol):
    """A parametrisation of a site. Stateless: shapes and formulas, no weights.

    Three members make one: ``frozen``, ``initial_factors`` and ``layers``. Inherit from this class
    for the rest, which claims the least: what an adapter does not claim is refused where it would
    matter, under privacy above all.
    """

    @abstractmethod
    def frozen(self, site: Site) -> frozenset[Role]:
        """Roles that never train at this site, whatever the plan says."""

    @abstractmethod
    def initial_factors(self, site: Site, seed: int) -> Mapping[Role, Tensor]:
        """Initial float32 tensors on the CPU; the adapted model's output must not change."""

    @abstractmethod
    def layers(
        self, sites: Sequence[Site], sink: PerExampleGradients, context: Context
    ) -> Mapping[str, Layer]:
        """The modules that take the sites' places, by site.

        Args:
            sites: in the order in which the model uses them.
            sink: takes per-example gradients.
            context: where layers of one forward pass meet.
        """

    def gates(self, sites: Sequence[Site], seed: int) -> Mapping[Key, Tensor]:
        """Initial float32 tensors of all routers, on the CPU, by key; none unless it is ``routed``.

        Args:
            sites: in the order in which the model uses them.
            seed: decides what is drawn.
        """
        return {}

    def idle(self, sites: Sequence[Site]) -> frozenset[Key]:
        """Tensors that decide nothing as things are, so that their gradient is zero.

        Args:
            sites: in the order in which the model uses them.
        """
        return frozenset()

    def check_sites(self, sites: Sequence[Site]) -> None:
        """Refuse sites that it is of no use at.

        Raises:
            ValueError: with the reason.
        """
        return

    def into_base(
        self, sites: Sequence[Site], factors: Factors, folded: Mapping[str, Matrix]
    ) -> Mapping[str, Matrix]:
        """What the base must hold, by site, for a layer's own pair beside it to compute the same.

        Args:
            sites: the adapted ones.
            factors: all of the model's.
            folded: what has been added to the base so far, unscaled.
        """
        return folded

    def out_of_base(
        self, sites: Sequence[Site], folded: Mapping[str, Matrix]
    ) -> Mapping[str, Matrix]:
        """What ``into_base`` gave, read back, as this adapter's own layers must hold it.

        Args:
            sites: the adapted ones.
            folded: all that an adapter folder adds to the base beside pairs, unscaled.
        """
        return folded

    def digests(self) -> tuple[str, ...]:
        """SHA-256 of whatever it holds frozen beside the base; clients must hold the same."""
        return ()

    @property
    def pairs_like(self) -> Adapter | None:
        """Whose pairs it has, with their rank, scale and dropout; None if it says so itself."""
        return None

    @property
    def rank(self) -> int:
        """The inner dimension r; 0 where there is none."""
        return 0 if self.pairs_like is None else self.pairs_like.rank

    @property
    def alpha(self) -> float:
        """Numerator of the scale, as PEFT's ``lora_alpha``."""
        return 1.0 if self.pairs_like is None else self.pairs_like.alpha

    @property
    def rslora(self) -> bool:
        """Whether the scale is alpha/sqrt(r), as PEFT's ``use_rslora``."""
        return False if self.pairs_like is None else self.pairs_like.rslora

    @property
    def scale(self) -> float:
        """What the adapted layer multiplies B A by: alpha/r, or alpha/sqrt(r) for rsLoRA."""
        return 1.0 if self.pairs_like is None else self.pairs_like.scale

    @property
    def dropout(self) -> float:
        """Probability of dropping an input of A while training."""
        return 0.0 if self.pairs_like is None else self.pairs_like.dropout

    @property
    def seeded(self) -> bool:
        """Whether the first factors are equal on every machine, so that A may travel as a seed."""
        return False if self.pairs_like is None else self.pairs_like.seeded

    @property
    def per_example_safe(self) -> bool:
        """Whether a record's gradient depends on no other record of its batch, to the last bit.

        What does not say so is refused under example-level privacy.
        """
        return False

    @property
    def unsafe_because(self) -> str:
        """Why it is not ``per_example_safe``, as users read it."""
        return (
            f"{type(self).__name__} does not claim that the gradient of a record depends on no "
            "other record of its batch, so clipping need not bound what one changes; define "
            "per_example_safe where that is so"
        )

    @property
    def whole_pair(self) -> bool:
        """Whether B A is all that is learned at a site, and both factors may train."""
        return False

    @property
    def multilinear(self) -> bool:
        """Whether the weight that it adds at a site is linear in each tensor of that site alone.

        With all others held. So the mean of one that moves by itself is the mean of the weights.
        """
        return False

    @property
    def foldable(self) -> bool:
        """Whether B A serves its own site alone, so that it can be added to that site's base."""
        return False

    @property
    def fits_peft(self) -> bool:
        """Whether what it adds to a site is one weight for all records, as PEFT has it.

        It can be merged then, and saved in PEFT's format.
        """
        return False

    @property
    def estimable(self) -> bool:
        """Whether something like it can be merged where it does not fit PEFT (``Estimate``)."""
        return False

    @property
    def own_layer_only(self) -> bool:
        """Whether PEFT's pair of a site, read back, is used at that site alone."""
        return True

    @property
    def starts_from_pairs(self) -> bool:
        """Whether trained pairs may be its first tensors, and it then computes what PEFT does."""
        return False

    @property
    def no_start_because(self) -> str:
        """Why it is not ``starts_from_pairs``, as users read it."""
        return (
            f"{type(self).__name__} does not claim that trained pairs may be its first tensors; "
            "define starts_from_pairs where that is so"
        )

    @property
    def serves_experts(self) -> bool:
        """Whether a layer of its own is a plain pair, which experts in one tensor can have."""
        return False

    @property
    def recomputable(self) -> bool:
        """Whether a layer may be computed again by itself, as gradient checkpointing does."""
        return False

    @property
    def not_recomputable_because(self) -> str:
        """Why it is not ``recomputable``, as users read it."""
        return (
            f"{type(self).__name__} does not claim that a layer can be computed again by itself; "
            "define recomputable where that is so"
        )

    @property
    def crowdable(self) -> bool:
        """Whether its layers know what to do with records that meet tensors of their own (Crowd).

        So clients of a simulation can train together. It is tried before any record is read.
        """
        return False

    @property
    def not_crowdable_because(self) -> str:
        """Why it is not ``crowdable``, as users read it."""
        return (
            f"{type(self).__name__} does not claim that records of one pass may meet tensors of "
            "their own; define crowdable where its layers ask for them"
        )

    @property
    def routed(self) -> bool:
        """Whether its layers ask a router what each record is to go through."""
        return False


def check_pair(rank: int, dropout: float) -> None:
    """Refuse what no pair can have.

    Raises:
        ValueError: if the rank is not positive or the dropout not in [0, 1).
    """
    if rank < 1:
        raise ValueError(f"r: the rank must be at least 1, not {rank}")
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"lora_dropout: must be in [0, 1), not {dropout}")


def pair_scale(alpha: float, rank: int, rslora: bool) -> float:
    """What an adapted layer multiplies B A by: alpha/r, or alpha/sqrt(r) for rsLoRA."""
    return alpha / (math.sqrt(rank) if rslora else rank)
