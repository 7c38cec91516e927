"""What an adapter is: which tensors exist at a site, how they begin, and their one scale."""

from collections.abc import Mapping
from typing import Protocol

from torch import Tensor

from silotune.core import Role, Site


class Adapter(Protocol):
    """A low-rank parametrisation of a site. Stateless: shapes and formulas, no weights."""

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

    def birth(self, site: Site, seed: int) -> Mapping[Role, Tensor]:
        """Initial float32 tensors on the CPU; the adapted model's output must not change."""
        ...
