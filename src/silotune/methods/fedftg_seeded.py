"""FedFTG in a subspace that all clients draw from one seed (arXiv 2410.23111, 2403.03507)."""

from dataclasses import dataclass
from typing import ClassVar

from silotune.adapters import Adapter, Projection
from silotune.schedules import Chain, Schedule

from .axes import PAIR, IncompatibleMethodError
from .base import Kind, Method
from .options import FoldEvery
from .plans import together


@dataclass(frozen=True, kw_only=True)
class FedFTGSeeded(Method):
    """FedFTG in a common subspace: every round draws a projector from the seed, the same for all.

    The form that may be private: a seed tells nothing of any record, and noise enters
    r max(out, in) numbers alone. The projector is orthonormal, on the smaller side of a layer;
    init_lora_weights means nothing here. With adamw, lora_alpha = r is a GaLore scale of 1.

    Attributes:
        fold_every: rounds that a projector lasts; then the pair is folded and another one drawn.
    """

    name: ClassVar[str] = "fedftg-seeded"
    title: ClassVar[str] = "FedFTG with common projectors"
    sentence: ClassVar[str] = (
        "Every round trains and averages in a random subspace that all silos draw from one seed; "
        "the sum is added to the frozen base"
    )
    kind: ClassVar[Kind] = Kind.CHAIN
    paper: ClassVar[str] = "2410.23111, 2403.03507"
    exact: ClassVar[str] = "yes, since the projector is common."
    noise: ClassVar[str] = "linear."
    up: ClassVar[str] = "r max(out, in)"
    down: ClassVar[str] = "r (out + in)"
    rate_scale: ClassVar[float] = 4.0

    fold_every: FoldEvery = 1

    def schedule(self, *, head: bool) -> Schedule:
        """The factor that is not the projector, which changes every so often."""
        return Chain(together(PAIR, head), every=self.fold_every)

    def adapter(self) -> Adapter:
        """A projector and its factor.

        Raises:
            IncompatibleMethodError: if the projector is to come from the base weights.
        """
        if self.init_lora_weights == "svd":
            raise IncompatibleMethodError(
                "a common projector is drawn from the seed: leave init_lora_weights out"
            )
        return Projection(
            rank=self.largest_rank,
            alpha=self.lora_alpha,
            dropout=self.lora_dropout,
            rslora=self.use_rslora,
        )
