"""Site: one place in a model that may be adapted. Orientation is settled here, once."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor, nn

from .record_axis import LEADING, RecordAxis


@dataclass(frozen=True, eq=False)
class Site:
    """A linear map inside a model.

    Attributes:
        name: dotted path of the module, as ``model.get_submodule`` takes it; of an expert in a
            tensor of all of them, the path of the parameter with its number (``expert_matrix``).
        module: the frozen base module, a black box with an input and an output.
        in_features: numbers in.
        out_features: numbers out.
        transposed: the weight is stored as (in, out), as in GPT-2's ``Conv1D``.
        records: where the records of a batch lie in what the module reads.
    """

    name: str
    module: nn.Module
    in_features: int
    out_features: int
    transposed: bool = False
    records: RecordAxis = LEADING

    def weight(self) -> Tensor:
        """The base weight as (out, in): a view, or dequantised."""
        weight = self.module.weight
        assert isinstance(weight, Tensor)
        return weight.T if self.transposed else weight


class Place(NamedTuple):
    """Where a site stands in a stack of layers: ``encoder.layer`` . ``3`` . ``attention.query``."""

    stack: str
    layer: int
    part: str


def place_of(name: str) -> Place | None:
    """The place that a site's name tells: its first number is the layer's; None if it has none."""
    parts = name.split(".")
    first = next((i for i, part in enumerate(parts) if part.isdigit()), None)
    if first is None:
        return None
    return Place(".".join(parts[:first]), int(parts[first]), ".".join(parts[first + 1 :]))
