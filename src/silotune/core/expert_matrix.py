"""One expert's matrix, where a module keeps those of all its experts in one tensor.

Transformers' mixtures of experts have no linear map for each expert, but a parameter (experts, out,
in). Each slice of it is a site of its own, named by the parameter and its number:
``model.layers.0.mlp.experts.down_proj[3]``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import Tensor, nn

from .factors import Key

_NAME = re.compile(r"(.+)\[(\d+)\]")


class ExpertMatrix(nn.Module):
    """A view of one matrix of a stack, in the place of a linear map's module.

    Args:
        owner: the module that has the parameter, and stays its only owner.
        parameter: its name in ``owner``.
        index: of the expert.
    """

    bias = None

    def __init__(self, owner: nn.Module, parameter: str, index: int) -> None:
        super().__init__()
        self._owner = (owner,)  # in a tuple, so that it is no child
        self.parameter = parameter
        self.index = index

    @property
    def owner(self) -> nn.Module:
        """The module that has the parameter."""
        return self._owner[0]

    @property
    def stack(self) -> nn.Parameter:
        """The matrices of all experts."""
        return self.owner.get_parameter(self.parameter)

    @property
    def weight(self) -> Tensor:
        """This expert's, as it is stored."""
        return self.stack[self.index]


def expert_name(parameter: str, index: int) -> str:
    """The site of an expert in a parameter, which is named in full."""
    return f"{parameter}[{index}]"


def parameter_of(site: str) -> str:
    """The parameter that an expert's site is in; a site of any other kind as it is."""
    match = _NAME.fullmatch(site)
    return match[1] if match else site


def stack_key(key: Key) -> Key:
    """The key of all experts in one parameter, of whom some may be sent nothing; or just the key.

    Where one of them learns, the others do too, once something is sent to them.
    """
    return key._replace(site=parameter_of(key.site))


def experts_by_parameter(sites: Iterable[str]) -> dict[str, list[str]]:
    """The experts among some sites, by parameter, each list by number."""
    found: dict[str, list[tuple[int, str]]] = {}
    for site in sites:
        if match := _NAME.fullmatch(site):
            found.setdefault(match[1], []).append((int(match[2]), site))
    return {parameter: [site for _, site in sorted(each)] for parameter, each in found.items()}
