"""FedFTG (arXiv 2410.23111)."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

from annotated_types import Ge, Gt

from silotune.adapters import Adapter, Dense
from silotune.core import Role
from silotune.optim import AdamW, GaLoreConfig, OptimizerConfig
from silotune.optim.galore import Decays
from silotune.schedules import Constant, Schedule

from .axes import IncompatibleMethodError
from .base import Kind, Method
from .options import About
from .plans import together


@dataclass(frozen=True, kw_only=True)
class FedFTG(Method):
    """FedFTG (Mahla et al. 2024, arXiv 2410.23111): average whole matrices, trained by GaLore.

    The system of "Why Gradient Subspace?". r is the rank of GaLore's projector, which is a client's
    own; lora_alpha and the other keys of a pair mean nothing here. Where the optimiser begins
    afresh in every round, so does the projector: galore_gap above local_steps then changes nothing.
    Weight decay shrinks what was learned beside the base weight, or both together as in GaLore's
    paper, where the trained weight is the base weight.

    Attributes:
        galore_gap: local steps between two choices of the projector.
        galore_scale: factor on the steps of the matrices.
        weight_decay_of: what weight decay shrinks.
    """

    name: ClassVar[str] = "fedftg"
    title: ClassVar[str] = "FedFTG"
    sentence: ClassVar[str] = (
        "Whole matrices are trained by GaLore in a subspace of each silo's own, and averaged"
    )
    kind: ClassVar[Kind] = Kind.CHAIN
    paper: ClassVar[str] = "2410.23111"
    exact: ClassVar[str] = "yes, a mean of matrices."
    noise: ClassVar[str] = "linear, in all out in numbers: refused under example-level privacy."
    up: ClassVar[str] = "out in"
    down: ClassVar[str] = "out in"
    made_of_adamw: ClassVar[bool] = True
    rate_scale: ClassVar[float] = 4.0

    galore_gap: Annotated[
        int, Ge(1), About("Local steps between two choices of GaLore's projector.")
    ] = GaLoreConfig.gap
    galore_scale: Annotated[float, Gt(0), About("Factor on the steps of whole matrices.")] = (
        GaLoreConfig.scale
    )
    weight_decay_of: Annotated[
        Decays,
        About(
            "What weight decay shrinks: the update beside the base weight; or the weight, base and "
            "update together (GaLore's paper)."
        ),
    ] = GaLoreConfig.decays

    def schedule(self, *, head: bool) -> Schedule:
        """Whole matrices in every round."""
        return Constant(together({Role.D}, head))

    def adapter(self) -> Adapter:
        """A whole matrix beside every base.

        Raises:
            IncompatibleMethodError: for dropout.
        """
        if self.lora_dropout:
            raise IncompatibleMethodError("a whole matrix has no dropout: set lora_dropout to 0")
        return Dense()

    def optimizer(self, given: OptimizerConfig) -> OptimizerConfig:
        """GaLore with the numbers of AdamW.

        Raises:
            IncompatibleMethodError: if another one is given.
        """
        if not isinstance(given, AdamW):
            raise IncompatibleMethodError(
                "the local optimiser is GaLore, which is AdamW in a subspace: set optimizer "
                "to adamw"
            )
        return GaLoreConfig(
            lr=given.lr,
            rank=self.largest_rank,
            gap=self.galore_gap,
            scale=self.galore_scale,
            weight_decay=given.weight_decay,
            decays=self.weight_decay_of,
            betas=given.betas,
            eps=given.eps_or(GaLoreConfig.eps),
        )
