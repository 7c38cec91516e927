"""Fed-SB (arXiv 2502.15436)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from silotune.adapters import Adapter, Init, LoRASB
from silotune.core import Role
from silotune.schedules import Constant, Schedule

from .base import Kind, Method
from .options import About
from .plans import together


@dataclass(frozen=True, kw_only=True)
class FedSB(Method):
    """Fed-SB (Singhal et al. 2025, arXiv 2502.15436): a core R (r, r) between frozen B and A.

    Only R trains, travels and is averaged: r r numbers a layer, whatever its size, so that r may be
    far larger than elsewhere. The paper begins A, B and R from a gradient on training data, which
    tells of records and is not built; here A and B are public, and R = 0.

    Attributes:
        init_lora_weights: how A and B begin: orthonormal, drawn from the seed; kaiming, likewise;
            or svd, the principal singular vectors of the base weights (as LoRA-XS has them).
    """

    name: ClassVar[str] = "fed-sb"
    title: ClassVar[str] = "Fed-SB"
    sentence: ClassVar[str] = (
        "Only a small square matrix between two frozen factors is trained and averaged"
    )
    kind: ClassVar[Kind] = Kind.SHARING
    paper: ClassVar[str] = "2502.15436"
    exact: ClassVar[str] = "yes, since A and B are common."
    noise: ClassVar[str] = "linear, in r r numbers a layer."
    up: ClassVar[str] = "r r"
    down: ClassVar[str] = "r r"
    rate_scale: ClassVar[float] = 4.0

    init_lora_weights: Annotated[
        Literal["kaiming", "orthonormal", "svd"],
        About(
            "How the frozen A and B begin: orthonormal or Kaiming-uniform from the seed; or the "
            "principal singular vectors of the public base weights."
        ),
    ] = "orthonormal"

    def schedule(self, *, head: bool) -> Schedule:
        """R in every round."""
        return Constant(together({Role.R}, head))

    def adapter(self) -> Adapter:
        """A core between frozen factors."""
        return LoRASB(
            rank=self.largest_rank,
            alpha=self.lora_alpha,
            dropout=self.lora_dropout,
            rslora=self.use_rslora,
            init=Init(self.init_lora_weights),
        )
