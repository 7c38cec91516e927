"""PEFT's folder format: what is written here loads with ``PeftModel.from_pretrained``.

``adapter_config.json`` and ``adapter_model.safetensors``: pairs under ``lora_A`` and ``lora_B``,
heads under ``modules_to_save``, with all else that lies in these modules. PEFT applies alpha/r
itself, so pairs are written unscaled; heads carry their scale with them.

PEFT knows nothing but pairs, so what earlier rounds added to the base goes into them,

    F + B A = [F_l, B] [F_r; A]                 F a product
            = [F + B A] [I]  or  [I] [F + B A]  F a whole matrix, or a stack that is no smaller

and their rank grows while the scale stays; a whole matrix D is written as the latter. So are the
pairs of other layers that a block shortcut uses (ResLoRA); what is read back is then all in the
base. All of it is float32, whatever the base is kept in. DoRA's lengths are written whole, |W| + M,
as ``lora_magnitude_vector``.

Shapes: out, in = features of a site, k = rank of a pair on file.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from silotune.core import Factors, Key, Role, Site, accumulated, write_bytes
from silotune.core.expert_matrix import parameter_of
from silotune.linalg import LowRank, Matrix, compress, dense

from .base import Adapter
from .peft_experts import divided, joined, stacks
from .sealed import sealed, unsealed
from .site_layer import row_lengths

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
PREFIX = "base_model.model."
"""Before the name of every tensor on file."""

PARTS = {Role.A: "lora_A.weight", Role.B: "lora_B.weight"}
"""How the names of a pair's tensors end."""

LENGTHS = "lora_magnitude_vector"
"""How the name of DoRA's tensor ends."""

_NOTHING: Mapping[str, Matrix] = {}
_NO_TENSORS: Mapping[str, Tensor] = {}


@dataclass(frozen=True, kw_only=True)
class PeftLayout:
    """What PEFT needs to know beyond the tensors.

    Attributes:
        base_model: hub name or folder of the base model.
        task_type: SEQ_CLS, CAUSAL_LM, or None for any other model.
        target_modules: names that match the adapted sites and nothing else; for a head alone, the
            one module that carries a pair of zeros, because PEFT refuses an adapter without any.
        modules_to_save: modules that hold the heads.
        head_scale: what the heads' factors are multiplied by.
        beside: by name, what else lies in ``modules_to_save`` and never trains.
        target_parameters: full names of the tensors of experts that are adapted, in the model's
            order.
    """

    base_model: str
    task_type: str | None
    target_modules: Sequence[str]
    modules_to_save: Sequence[str]
    head_scale: float
    beside: Mapping[str, Tensor] = field(default_factory=dict)
    target_parameters: Sequence[str] = ()


def save_peft(
    folder: Path,
    factors: Factors,
    adapter: Adapter | None,
    sites: Sequence[Site],
    layout: PeftLayout,
    folded: Mapping[str, Matrix] = _NOTHING,
) -> None:
    """Write an adapter folder; each file is replaced whole.

    Args:
        folder: made if absent.
        factors: all of the model's.
        adapter: None for a head alone.
        sites: the adapted sites; for a head alone, the carrier.
        layout: the rest.
        folded: what has been added to the base, by site, unscaled.

    Raises:
        RecordError: if the disk is full or the place cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if adapter is not None:
        folded = adapter.into_base(sites, factors, folded)
    pairs = {site.name: _pair(site, factors, folded.get(site.name)) for site in sites}
    ranks = {name: pair.rank for name, pair in pairs.items()}
    for parameter, stack in stacks(list(pairs), layout.target_parameters).items():
        ranks[parameter] = max(ranks.pop(site) for site in stack.sites)
        pairs[stack.place] = joined([pairs.pop(site) for site in stack.sites])
    heads = {name_on_file(k): t * layout.head_scale for k, t in factors.only({Role.HEAD}).items()}
    beside = {f"{PREFIX}{n}": t.to("cpu", copy=True) for n, t in layout.beside.items()}
    lengths = _lengths(sites, factors)
    named = beside | heads | lengths | _named(pairs)
    tensors = {name: t.contiguous() for name, t in named.items()}
    write_bytes(folder / WEIGHTS, sealed(tensors))
    config = {
        "peft_type": "LORA",
        "task_type": layout.task_type,
        "base_model_name_or_path": layout.base_model,
        "inference_mode": True,
        **_ranks(ranks, adapter),
        "lora_dropout": adapter.dropout if adapter else 0.0,
        "bias": "none",
        "fan_in_fan_out": any(s.transposed and parameter_of(s.name) == s.name for s in sites),
        "target_modules": list(layout.target_modules),
        "modules_to_save": list(layout.modules_to_save) or None,
    }
    if lengths:
        config["use_dora"] = True
    if layout.target_parameters:  # a key that is younger than the others
        config["target_parameters"] = list(layout.target_parameters)
    write_bytes(folder / CONFIG, (json.dumps(config, indent=2) + "\n").encode())


def load_peft(
    folder: Path,
    expected: Mapping[Key, tuple[int, ...]],
    adapter: Adapter | None,
    head_scale: float,
    beside: Mapping[str, Tensor] = _NO_TENSORS,
    target_parameters: Sequence[str] = (),
    adapted: Sequence[Site] = (),
) -> tuple[Factors, dict[str, Matrix]]:
    """Read an adapter folder, whether we or PEFT wrote it.

    A pair whose rank is not the model's own is what has been added to the base; the model's pair
    is zero there. A pair with another scale than the model's is written in the model's.

    Args:
        folder: holds the two files.
        expected: shapes of the model's factors.
        adapter: the model's; None for a head alone.
        head_scale: what the heads' factors are multiplied by.
        beside: what else the model has in the modules that are saved whole, by name.
        target_parameters: tensors of experts that the model adapts, as ``PeftLayout`` has them.
        adapted: the sites, which DoRA alone needs: lengths are told from those of their weights.

    Returns:
        The factors, and by site what has been added to the base, unscaled.

    Raises:
        ValueError: if the folder is not an adapter, or not one of this model.
    """
    tensors, config = read_files(folder)
    tensors = by_site(folder, tensors, expected, target_parameters)
    heads = {name_on_file(key): key for key in expected if key.role is Role.HEAD}
    sites = sorted({key.site for key in expected if key.role is not Role.HEAD})
    lengths = {name_on_file(key): key for key in expected if key.role is Role.M}
    names = {name_on_file(Key(site, role)) for site in sites for role in PARTS}
    names |= heads.keys() | lengths.keys()
    check_beside(folder, tensors, beside)
    rest = {name: t for name, t in tensors.items() if name.removeprefix(PREFIX) not in beside}
    present = {n: t.float() for n, t in rest.items() if n in names or t.any()}
    if differ := names ^ present.keys():
        raise ValueError(f"{folder} does not fit the model; tensors differ: {min(differ)}")
    factors = {key: present[name] * (1.0 / head_scale) for name, key in heads.items()}
    folded: dict[str, Matrix] = {}
    for site in sites:
        pair = LowRank(*(present[name_on_file(Key(site, role))] for role in (Role.B, Role.A)))
        if pair.left.shape[1:] != pair.right.shape[:1]:
            raise ValueError(f"{folder}: the shapes of lora_A and lora_B at {site} do not agree")
        if adapter is not None:
            pair = pair * (scale_in(config, site, pair.rank) / adapter.scale)
        own = {role: Key(site, role) for role in Role if Key(site, role) in expected}
        if Role.D in own:
            factors[own[Role.D]] = pair.dense()
        elif pair.rank == expected[own[Role.A]][0]:
            factors |= {own[Role.A]: pair.right, own[Role.B]: pair.left}
            if Role.R in own:
                factors[own[Role.R]] = torch.eye(pair.rank, dtype=pair.right.dtype)
        else:
            factors |= {key: torch.zeros(expected[key]) for key in own.values()}
            folded[site] = _smaller(pair)
    factors |= {key: present[name] for name, key in lengths.items()}
    _check_lengths(folder, config, lengths.values(), folded)
    _check_shapes(folder, Factors(factors), folded, expected)
    weights = {site.name: site for site in adapted}
    factors |= {k: factors[k] - _base_lengths(weights[k.site]) for k in lengths.values()}
    if adapter is not None and not adapter.own_layer_only:
        return _all_in_base(Factors(factors), folded)
    return Factors(factors), folded


def _pair(site: Site, factors: Factors, folded: Matrix | None) -> LowRank:
    """All that is learned at a site as one pair; a pair of zeros where nothing is."""
    whole = factors.get(Key(site.name, Role.D))
    if whole is not None:
        return _beside_identity(whole if folded is None else whole + dense(folded))
    if Key(site.name, Role.A) not in factors:
        return LowRank(torch.zeros(site.out_features, 1), torch.zeros(1, site.in_features))
    pair = factors.pair(site.name)
    if folded is None:
        return pair
    if not isinstance(folded, LowRank):
        total = folded.double() + pair.to(torch.float64).dense()
        return _beside_identity(total.to(folded.dtype))
    stack = folded + pair if pair.left.any() and pair.right.any() else folded
    packed = compress(stack, tolerance=torch.finfo(torch.float32).eps * float(stack.norm()))
    least = packed if 0 < packed.rank < stack.rank else stack
    return least if least.rank < min(least.shape) else _beside_identity(dense(least))


def _all_in_base(
    factors: Factors, folded: Mapping[str, Matrix]
) -> tuple[Factors, dict[str, Matrix]]:
    """Every pair moved into the base with B = 0 left, so that no other layer uses it, too."""
    pairs = {site: factors.pair(site) for site in factors.pair_sites()}
    used: dict[str, Matrix] = {s: p for s, p in pairs.items() if p.left.any() and p.right.any()}
    zeros = {Key(site, Role.B): torch.zeros_like(pair.left) for site, pair in pairs.items()}
    return factors.updated(zeros), dict(accumulated(folded, used))


def _beside_identity(whole: Tensor) -> LowRank:
    """A matrix as a product, to the bit: rank min(out, in)."""
    out, into = whole.shape
    identity = torch.eye(min(out, into), dtype=whole.dtype)
    return LowRank(whole, identity) if into <= out else LowRank(identity, whole)


def _smaller(pair: LowRank) -> Matrix:
    """Multiplied out where that takes no more room."""
    return pair if pair.rank < min(pair.shape) else pair.dense()


def _ranks(ranks: Mapping[str, int], adapter: Adapter | None) -> dict[str, Any]:
    """PEFT's keys for ranks and scales: as the adapter has them, if all pairs are of its rank.

    Else alpha = scale r at every site, and never ``use_rslora``.
    """
    [(most, _)] = Counter(ranks.values()).most_common(1)
    if adapter is None or set(ranks.values()) == {adapter.rank}:
        alpha, rslora = (adapter.alpha, adapter.rslora) if adapter else (1.0, False)
        return {"r": most, "lora_alpha": alpha, "use_rslora": rslora}
    others = {f"^{re.escape(name)}": rank for name, rank in ranks.items() if rank != most}
    return {
        "r": most,
        "lora_alpha": adapter.scale * most,
        "use_rslora": False,
        "rank_pattern": others,
        "alpha_pattern": {pattern: adapter.scale * rank for pattern, rank in others.items()},
    }


def scale_in(config: Mapping[str, Any], site: str, rank: int) -> float:
    """What PEFT multiplies a site's pair by: alpha/r, or alpha/sqrt(r)."""
    patterns = config.get("alpha_pattern") or {}
    name = parameter_of(site)
    matching = (p for p in patterns if re.match(rf"(.*\.)?({p})$", name))  # as PEFT matches them
    pattern = next(matching, None)
    alpha = config["lora_alpha"] if pattern is None else patterns[pattern]
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)


def read_files(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Both files of an adapter; its tensors by name, in the order of the names.

    Raises:
        ValueError: if they cannot be read.
    """
    file = folder / WEIGHTS
    try:
        tensors = unsealed(file.read_bytes())
        file = folder / CONFIG
        config = json.loads(file.read_bytes())
        alphas = [config["lora_alpha"], *(config.get("alpha_pattern") or {}).values()]
        if not all(type(alpha) in (int, float) for alpha in alphas):
            raise TypeError("a scale is no number")
        return tensors, config
    except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error


def by_site(
    folder: Path,
    tensors: Mapping[str, Tensor],
    expected: Iterable[Key],
    target_parameters: Sequence[str],
) -> dict[str, Tensor]:
    """The tensors of a folder with a pair for every expert, under the name of its site.

    Raises:
        ValueError: if there are not so many experts.
    """
    a, b = (f"{PREFIX}{{}}.{PARTS[role]}" for role in (Role.A, Role.B))
    found = stacks({key.site for key in expected}, target_parameters).values()
    try:
        return divided(tensors, found, (a, b))
    except ValueError as error:
        raise ValueError(f"{folder} does not fit the model; {error}") from error


def check_beside(folder: Path, tensors: Mapping[str, Tensor], beside: Mapping[str, Tensor]) -> None:
    """Refuse a folder in which what never trains is not the model's; it may be left out.

    Raises:
        ValueError: naming the tensor.
    """
    for name, own in beside.items():
        found = tensors.get(f"{PREFIX}{name}")
        if found is not None and not torch.equal(found.to(own), own):
            raise ValueError(f"{folder} does not fit the model; it has another {name}")


def _check_shapes(
    folder: Path,
    factors: Factors,
    folded: Mapping[str, Matrix],
    expected: Mapping[Key, tuple[int, ...]],
) -> None:
    """Of every tensor, and of what has been added to the base."""
    wrong = [str(key) for key, t in factors.items() if tuple(t.shape) != expected[key]]
    for site, matrix in folded.items():
        shape = expected[Key(site, Role.B)][0], expected[Key(site, Role.A)][1]
        if tuple(matrix.shape) != shape:
            wrong.append(site)
    if wrong:
        raise ValueError(f"{folder} does not fit the model; the shape of {wrong[0]} differs")


def _check_lengths(
    folder: Path, config: Mapping[str, Any], lengths: Collection[Key], folded: Collection[str]
) -> None:
    """That rows have lengths where the model has them, and a pair of the model's rank beside."""
    if bool(config.get("use_dora")) != bool(lengths):
        raise ValueError(f"{folder} does not fit the model; use_dora differs")
    if wrong := [key.site for key in lengths if key.site in folded]:
        raise ValueError(f"{folder} does not fit the model; r differs at {wrong[0]}")


def name_on_file(key: Key) -> str:
    """What PEFT calls a tensor."""
    last = LENGTHS if key.role is Role.M else PARTS.get(key.role, key.name)
    return f"{PREFIX}{key.site}.{last}"


def _named(pairs: Mapping[str, LowRank]) -> dict[str, Tensor]:
    """Both halves of every pair by their names on file."""
    halves = [(Key(site, Role.A), pair.right) for site, pair in pairs.items()]
    halves += [(Key(site, Role.B), pair.left) for site, pair in pairs.items()]
    return {name_on_file(key): tensor for key, tensor in halves}


def _lengths(sites: Sequence[Site], factors: Factors) -> dict[str, Tensor]:
    """|W| + M (out,) by name on file, of the sites that have lengths of their own."""
    keys = {Key(site.name, Role.M): site for site in sites}
    return {
        name_on_file(key): factors[key] + _base_lengths(site)
        for key, site in keys.items()
        if key in factors
    }


def _base_lengths(site: Site) -> Tensor:
    """|W| (out,), float32 on the CPU."""
    return row_lengths(site).to("cpu", torch.float32)
