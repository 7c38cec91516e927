"""Which experts are adapted, where a model keeps those of a layer in one tensor; named as in PEFT.

Names are dotted paths from ``model.named_parameters()``; a suffix is a name's last parts.

Shapes: E experts, out, in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from silotune.core import Site
from silotune.core.expert_matrix import ExpertMatrix, expert_name, experts_by_parameter

from .target_modules import in_layers


def expert_stacks(model: nn.Module) -> dict[str, nn.Module]:
    """By full name, the parameters (E, out, in) of modules that say that they have E experts."""
    return {
        name: module
        for path, module in model.named_modules()
        for name, parameter in module.named_parameters(path, recurse=False)
        if parameter.dim() == 3 and parameter.shape[0] in _numbers_of_experts(module)
    }


def _numbers_of_experts(module: nn.Module) -> list[object]:
    """Whatever a module calls so: ``num_experts``, ``moe_num_experts``."""
    return [value for name, value in vars(module).items() if name.endswith("experts")]


def find_experts(
    model: nn.Module,
    target_parameters: Sequence[str] | None,
    layers_to_transform: Sequence[int] | None = None,
) -> tuple[Site, ...]:
    """A site for every expert of every parameter that is asked for, in the model's own order.

    Args:
        model: what ``load_model`` gives.
        target_parameters: suffixes of the names of parameters; none for no expert.
        layers_to_transform: keep these layers only: the first number in a name.

    Raises:
        ValueError: if a suffix matches nothing, or something that is no stack of experts.
    """
    if not target_parameters:
        return ()
    known = expert_stacks(model)
    parameters = [name for name, _ in model.named_parameters()]
    for suffix in target_parameters:
        matched = [name for name in parameters if _ends(name, suffix)]
        if not matched:
            raise ValueError(
                f"target_parameters: {suffix!r} matches no parameter; {present(model)}"
            )
        if other := next((name for name in matched if name not in known), None):
            raise ValueError(
                f"target_parameters: {other} is no tensor of one matrix an expert; "
                f"{present(model)}; linear layers belong in target_modules"
            )
    chosen = [name for name in known if any(_ends(name, s) for s in target_parameters)]
    kept = [name for name in chosen if in_layers(name, layers_to_transform)]
    if not kept:
        raise ValueError(
            f"layers_to_transform: no target parameter is in the layers {layers_to_transform}"
        )
    return tuple(site for name in kept for site in _sites(name, known[name]))


def endings(parameters: Sequence[str]) -> list[str]:
    """Names of stacks as one writes them: the module and its parameter (``experts.down_proj``)."""
    return sorted({".".join(name.split(".")[-2:]) for name in parameters})


def peft_parameters(sites: Sequence[Site]) -> tuple[str, ...]:
    """What to write as PEFT's ``target_parameters``: full names, in the model's order."""
    return tuple(experts_by_parameter(site.name for site in sites))


def present(model: nn.Module) -> str:
    """Which stacks a model has, in words."""
    found = endings(list(expert_stacks(model)))
    return f"this model's are {', '.join(found)}" if found else "this model has none"


def _sites(name: str, owner: nn.Module) -> list[Site]:
    """PEFT's orientation: (E, out, in), unless the module says that it is transposed."""
    parameter = name.rpartition(".")[2]
    experts, rows, columns = owner.get_parameter(parameter).shape
    transposed: Any = bool(getattr(owner, "is_transposed", False))
    into, out = (rows, columns) if transposed else (columns, rows)
    return [
        Site(expert_name(name, e), ExpertMatrix(owner, parameter, e), into, out, transposed)
        for e in range(experts)
    ]


def _ends(name: str, suffix: str) -> bool:
    return name == suffix or name.endswith(f".{suffix}")
