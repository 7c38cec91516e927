"""Start: a trained adapter taken over as the first tensors of another run, or refused in words.

Nothing is fitted: ranks, scales, sites and shapes must be the run's own, so that its model before
the first round computes what PEFT computes with the folder.

Shapes: out, in = features of a site, r rank.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from silotune.core import Factors, Key, Role
from silotune.linalg import LowRank

from .base import Adapter
from .peft_io import PREFIX, by_site, check_beside, name_on_file, read_files, scale_in
from .peft_pairs import pairs_in, refuse_more_than_pairs, refuse_other_base


def read_start(
    folder: Path,
    base_model: str,
    first: Factors,
    adapter: Adapter | None,
    head_scale: float,
    beside: Mapping[str, Tensor],
    target_parameters: Sequence[str] = (),
) -> Factors:
    """The tensors that a folder puts in the place of the first ones, float32 on the CPU.

    Args:
        folder: an adapter's, in PEFT's format.
        base_model: name or folder of the run's base; the last part of it counts.
        first: the tensors that the run would begin with.
        adapter: the run's, which must be one that ``starts_from_pairs``; None for a head alone.
        head_scale: what the heads' factors are multiplied by.
        beside: what else the model has in the modules that are saved whole, by name.
        target_parameters: tensors of experts that the run adapts, in the model's order.

    Raises:
        ValueError: naming the field in which the folder and the run differ, with both values.
    """
    try:
        tensors, config = read_files(folder)
        if config.get("peft_type", "LORA") != "LORA":
            raise ValueError(f"{folder} is an adapter of another kind ({config['peft_type']})")
        refuse_more_than_pairs(folder, config)
        refuse_other_base(folder, str(config.get("base_model_name_or_path") or ""), base_model)
        check_beside(folder, tensors, beside)
        tensors = by_site(folder, tensors, first, target_parameters)
        pairs = pairs_in(folder, tensors)
        wild = next((name for name, t in tensors.items() if not t.isfinite().all()), None)
        if wild is not None:
            raise ValueError(f"{folder}: {wild} holds numbers that are not finite")
    except ValueError as error:
        raise ValueError(f"init_from: {error}") from error
    sites = {key.site for key in first if key.role in (Role.A, Role.D)}
    used = {s: p for s, p in pairs.items() if s in sites or (p.left.any() and p.right.any())}
    _refuse_other_sites(folder, config, sites, used)
    found: dict[Key, Tensor] = {}
    for site, pair in used.items():
        found |= dict(_taken_over(folder, config, site, pair, first, adapter))
    return Factors(found | _heads(folder, tensors, first, head_scale, beside))


def _refuse_other_sites(
    folder: Path, config: Mapping[str, Any], sites: set[str], used: Mapping[str, LowRank]
) -> None:
    if differ := sites ^ used.keys():
        site = min(differ)
        here, there = ("is", "has no pair") if site in sites else ("is not", "has a pair")
        raise ValueError(
            f"target_modules: {site} {here} adapted here, and {folder} (target_modules "
            f"{_told(config.get('target_modules'))}) {there} there"
        )


def _taken_over(
    folder: Path,
    config: Mapping[str, Any],
    site: str,
    pair: LowRank,
    first: Factors,
    adapter: Adapter | None,
) -> Iterator[tuple[Key, Tensor]]:
    """The tensors of a site: its pair, or the whole matrix that the pair comes to."""
    assert adapter is not None, "a site without an adapter"
    a, b, d = (Key(site, role) for role in (Role.A, Role.B, Role.D))
    scale = scale_in(config, site, pair.rank)
    expected = tuple(first[d].shape) if d in first else (first[b].shape[0], first[a].shape[1])
    if tuple(pair.shape) != expected:
        raise ValueError(
            f"init_from: {site} is {expected} here, and {tuple(pair.shape)} in {folder}: another "
            "base model"
        )
    if d in first:
        yield d, (pair.to(torch.float64).dense() * scale).float()
        return
    if pair.rank != adapter.rank:
        raise ValueError(f"r: {adapter.rank} here, and {pair.rank} at {site} in {folder}")
    if not math.isclose(scale, adapter.scale, rel_tol=1e-6):
        raise ValueError(
            f"lora_alpha: pairs are scaled by {adapter.scale:g} here (lora_alpha "
            f"{adapter.alpha:g}, use_rslora {_told(adapter.rslora)}), and by {scale:g} at {site} "
            f"in {folder} (lora_alpha {config['lora_alpha']:g}, use_rslora "
            f"{_told(bool(config.get('use_rslora')))})"
        )
    yield a, pair.right.contiguous()
    yield b, pair.left.contiguous()


def _heads(
    folder: Path,
    tensors: Mapping[str, Tensor],
    first: Factors,
    head_scale: float,
    beside: Collection[str],
) -> dict[Key, Tensor]:
    """The head of the folder, whole; nothing if it has none."""
    own = {name_on_file(key): key for key in first if key.role is Role.HEAD}
    others = {
        name: tensor
        for name, tensor in tensors.items()
        if ".lora_" not in name and name.removeprefix(PREFIX) not in beside
    }
    if strange := others.keys() - own.keys():
        raise ValueError(
            f"init_from: {folder} also has {min(strange)} (modules_to_save), and this run trains "
            f"{', '.join(sorted(own)) or 'no head'}"
        )
    if others and (missing := own.keys() - others.keys()):
        raise ValueError(f"init_from: {folder} has a part of the head, and not {min(missing)}")
    for name, tensor in others.items():
        here, there = tuple(first[own[name]].shape), tuple(tensor.shape)
        if here != there:
            raise ValueError(f"labels: {name} is {here} here, and {there} in {folder}")
    return {own[name]: t.float().contiguous() * (1.0 / head_scale) for name, t in others.items()}


def _told(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
