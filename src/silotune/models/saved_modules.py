"""What PEFT must save whole for a model to keep its heads: ``modules_to_save``.

PEFT finds modules by the ends of their names, and saves and loads every tensor in them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from torch import Tensor, nn

from .prepare import base_name


def saved_modules(model: Any, heads: Collection[str]) -> list[str]:
    """The modules that hold the heads: all of a head outside the encoder.

    Args:
        model: transformers', or a classifier of ours.
        heads: names of linear maps.
    """
    base = base_name(model)
    return sorted({h if h.startswith(f"{base}.") else h.partition(".")[0] for h in heads})


def beside_heads(
    model: nn.Module, modules: Sequence[str], heads: Collection[str]
) -> dict[str, Tensor]:
    """By name, the tensors that PEFT saves with these modules though they are no head's.

    A normalisation between two linear maps (ModernBERT), say. They are the model's own, not copies.

    Args:
        model: with its plain modules.
        modules: PEFT's ``modules_to_save``.
        heads: names of linear maps.
    """
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if name and name.endswith(tuple(modules)):
            found |= {f"{name}.{part}": tensor for part, tensor in module.state_dict().items()}
    return {n: t.detach() for n, t in found.items() if n.rpartition(".")[0] not in heads}
