"""The pairs of an adapter folder as they are, whoever trained them and for whatever model.

What PEFT can add to pairs (DoRA, biases, tokens, a base that changes) is refused, not left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from silotune.core import Key, Role
from silotune.linalg import LowRank

from .peft_io import PARTS, PREFIX, name_on_file, read_files, scale_in

_BESIDE_THE_BASE = frozenset({"gaussian", "eva", "orthogonal"})
"""Ways of PEFT's to begin a pair, by name, that leave the base as it is; True and False do too."""


def read_pairs(folder: Path) -> tuple[dict[str, LowRank], str]:
    """Every pair in an adapter folder, float32, by site; each one's scale is multiplied into it.

    Also gives the base model that the folder names; empty if it names none.

    Raises:
        ValueError: if the folder is not an adapter, or has no pair.
    """
    tensors, config = read_files(folder)
    refuse_more_than_pairs(folder, config)
    if config.get("target_parameters"):
        raise ValueError(f"{folder}: its pairs for target_parameters are beside no linear layer")
    pairs = pairs_in(folder, tensors)
    if not pairs:
        raise ValueError(f"{folder} holds no pair of lora_A and lora_B")
    scaled = {
        site: LowRank(pair.left * scale_in(config, site, pair.rank), pair.right)
        for site, pair in pairs.items()
    }
    return scaled, str(config.get("base_model_name_or_path") or "")


def pairs_in(folder: Path, tensors: Mapping[str, Tensor]) -> dict[str, LowRank]:
    """Every pair among the tensors of a folder, float32, by site, unscaled.

    Raises:
        ValueError: if there is something else beside a layer, or half of a pair.
    """
    pairs: dict[str, LowRank] = {}
    for name, right in tensors.items():
        if ".lora_" in name and not name.endswith(tuple(PARTS.values())) and right.any():
            raise ValueError(f"{folder}: {name} is no part of a pair beside a linear layer")
        site = name.removeprefix(PREFIX).removesuffix(f".{PARTS[Role.A]}")
        if name != name_on_file(Key(site, Role.A)):
            continue
        left = tensors.get(name_on_file(Key(site, Role.B)))
        if left is None or left.shape[1:] != right.shape[:1]:
            raise ValueError(f"{folder}: the shapes of lora_A and lora_B at {site} do not agree")
        pairs[site] = LowRank(left.float(), right.float())
    return pairs


def refuse_other_base(folder: str | Path, made_for: str, base_model: str) -> None:
    """Refuse an adapter that says that it was made for another model; the last part counts.

    Args:
        folder: of the adapter.
        made_for: what it says; empty if it says nothing.
        base_model: name or folder of the model that it is to stand beside.

    Raises:
        ValueError: with both names.
    """
    if made_for and Path(made_for).name != Path(base_model).name:
        raise ValueError(
            f"{folder} was made for {made_for}, and means nothing beside {base_model}; if that is "
            "the same model, set base_model_name_or_path to it in the folder's adapter_config.json"
        )


def refuse_more_than_pairs(folder: Path, config: Mapping[str, Any]) -> None:
    """Whatever PEFT adds to pairs beside an unchanged base; we would leave it out."""
    if config.get("use_dora"):
        raise ValueError(f"{folder}: DoRA scales what a pair makes; train the adapter without it")
    if config.get("bias", "none") != "none":
        raise ValueError(
            f"{folder}: its biases are trained as well; train the adapter without them"
        )
    if config.get("trainable_token_indices"):
        raise ValueError(
            f"{folder}: its tokens are trained as well; train the adapter without them"
        )
    init = config.get("init_lora_weights", True)
    if isinstance(init, str) and init.lower() not in _BESIDE_THE_BASE:
        raise ValueError(
            f"{folder}: init_lora_weights {init} also changes the base; have PEFT save the adapter "
            "beside the original one (path_initial_model_for_weight_conversion)"
        )
