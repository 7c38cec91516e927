"""What an adapter is: which tensors exist at a site, how they begin, and their one scale."""

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from silotune.algebra import Matrix
from silotune.core import Context, GradientSink, Key, Role, Site


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
    """A parametrisation of a site. Stateless: shapes and formulas, no weights."""

    @property
    def rank(self) -> int:
        """The inner dimension r."""
        ...

    @property
    def alpha(self) -> float:
        """Numerator of the scale, as PEFT's ``lora_alpha``."""
        ...

    @property
    def rslora(self) -> bool:
        """Whether the scale is alpha/sqrt(r), as PEFT's ``use_rslora``."""
        ...

    @property
    def scale(self) -> float:
        """What the adapted layer multiplies B A by: alpha/r, or alpha/sqrt(r) for rsLoRA."""
        ...

    @property
    def dropout(self) -> float:
        """Probability of dropping an input of A while training."""
        ...

    @property
    def seeded(self) -> bool:
        """Whether ``birth`` is the same on every machine, so that A may travel as a seed."""
        ...

    def frozen(self, site: Site) -> frozenset[Role]:
        """Roles that never train at this site, whatever the plan says."""
        ...

    def birth(self, site: Site, seed: int) -> Mapping[Role, Tensor]:
        """Initial float32 tensors on the CPU; the adapted model's output must not change."""
        ...

    def layers(
        self, sites: Sequence[Site], sink: GradientSink, context: Context
    ) -> Mapping[str, Layer]:
        """The modules that take the sites' places, by site.

        Args:
            sites: in the order in which the model uses them.
            sink: takes per-example gradients.
            context: where layers of one forward pass meet.
        """
        ...


@runtime_checkable
class Routed(Adapter, Protocol):
    """An adapter whose layers ask a router what each record is to go through.

    What it adds to a base weight differs from record to record, so that it is merged nowhere and
    PEFT cannot hold it. Its routers decide once for a transformer layer.
    """

    def gates(self, sites: Sequence[Site], seed: int) -> Mapping[Key, Tensor]:
        """Initial float32 tensors of all routers, on the CPU, by key.

        Args:
            sites: in the order in which the model uses them.
            seed: decides what is drawn.
        """
        ...
