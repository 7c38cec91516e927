"""Pairs of experts in PEFT's format (``target_parameters``): those of a parameter are two tensors.

lora_A (E r, in) has one expert after another; lora_B (out, r E) has, for each of the r, one expert
after another. PEFT wraps a module once for each of its parameters, in their order, so all but the
last wrap lie under ``base_layer``.

Shapes: E experts, out, in, r rank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from silotune.core.expert_matrix import experts_by_parameter
from silotune.linalg import LowRank


@dataclass(frozen=True)
class Stack:
    """The experts of one parameter.

    Attributes:
        place: what stands before ``lora_A`` on file.
        sites: of its experts, in order.
    """

    place: str
    sites: Sequence[str]


def stacks(sites: Iterable[str], parameters: Sequence[str]) -> dict[str, Stack]:
    """By parameter, where its experts are on file.

    Args:
        sites: any, experts among them.
        parameters: those that are adapted, in the model's order.
    """
    found: dict[str, Stack] = {}
    for parameter, experts in experts_by_parameter(sites).items():
        owner = parameter.rpartition(".")[0]
        same = [other for other in parameters if other.rpartition(".")[0] == owner]
        wraps = len(same) - 1 - same.index(parameter)
        found[parameter] = Stack(owner + ".base_layer" * wraps, experts)
    return found


def joined(pairs: Sequence[LowRank]) -> LowRank:
    """The pairs of all experts of a parameter as one; smaller ones are filled up with zeros."""
    rank = max(pair.rank for pair in pairs)
    right = [pad(pair.right, (0, 0, 0, rank - pair.rank)) for pair in pairs]
    left = [pad(pair.left, (0, rank - pair.rank)) for pair in pairs]
    return LowRank(torch.stack(left, dim=-1).flatten(1), torch.cat(right))


def divided(
    tensors: Mapping[str, Tensor], stacks: Iterable[Stack], names: tuple[str, str]
) -> dict[str, Tensor]:
    """The tensors of a folder with a pair for every expert, under the name of its site.

    Args:
        tensors: by name.
        stacks: of the model that they are for.
        names: of A and B on file, with ``{}`` for the site.

    Raises:
        ValueError: if a shape is not that of so many experts.
    """
    found = dict(tensors)
    for stack in stacks:
        a, b = (name.format(stack.place) for name in names)
        if a not in found or b not in found:
            continue  # that it is missing is for the reader to say
        right, left, experts = found.pop(a), found.pop(b), len(stack.sites)
        if right.shape[0] % experts or left.shape[-1] != right.shape[0]:
            raise ValueError(f"the shapes of {a} and {b} are not those of {experts} experts")
        rank = right.shape[0] // experts
        lefts = left.reshape(left.shape[0], rank, experts)
        for e, site in enumerate(stack.sites):
            found[names[0].format(site)] = right[e * rank : (e + 1) * rank].contiguous()
            found[names[1].format(site)] = lefts[..., e].contiguous()
    return found
