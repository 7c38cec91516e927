"""What a parameter group says to our optimisers, beyond torch's numbers.

A group has a ``kind`` and ``names``:

- ``pair_optimizer``: ``params`` are A, B, A, B, ..: A (r, in) and B (out, r) of one site after the
other;
  ``names`` are the sites', one a pair; ``scale`` is s in W = W_0 + s B A, the same for the group.
- ``matrices``: whole matrices D (out, in), which GaLore projects.
- ``rest``: heads and whatever else is trained, which torch's own optimiser moves.

All of it is plain data, so it is saved with a ``state_dict`` and compared when one is loaded.

Shapes: out, in = features of a site, r = rank.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from silotune.core import Key, Role

PAIR = (Role.A, Role.B)
PAIRS, MATRICES, REST = "pairs", "matrices", "rest"
KINDS = (PAIRS, MATRICES, REST)

Group = dict[str, Any]


def groups_of(
    tensors: Mapping[Key, nn.Parameter], scale: float | Callable[[str], float] = 1.0
) -> list[Group]:
    """The groups of an adapted model's tensors; those that would be empty are left out.

    Args:
        tensors: those of the model, by key. A factor without the other belongs to ``rest``.
        scale: s, the same for all pairs or one for the name of every site.
    """
    sites = [k.site for k in tensors if k.role is Role.A and Key(k.site, Role.B) in tensors]
    found = [
        (
            site,
            tensors[Key(site, Role.A)],
            tensors[Key(site, Role.B)],
            scale(site) if callable(scale) else scale,
        )
        for site in sites
    ]
    paired = {Key(site, role) for site in sites for role in PAIR}
    others = {k: p for k, p in tensors.items() if k not in paired}
    return [
        *pair_groups(found),
        *plain_groups(MATRICES, ((str(k), p) for k, p in others.items() if k.role is Role.D)),
        *plain_groups(REST, ((str(k), p) for k, p in others.items() if k.role is not Role.D)),
    ]


def pair_groups(pairs: Iterable[tuple[str, Tensor, Tensor, float]]) -> list[Group]:
    """One for every scale, of (site, A, B, scale)."""
    by_scale: dict[float, Group] = {}
    for site, a, b, scale in pairs:
        new: Group = {"params": [], "kind": PAIRS, "names": [], "scale": scale}
        group = by_scale.setdefault(scale, new)
        group["params"] += [a, b]
        group["names"].append(site)
    return list(by_scale.values())


def plain_groups(kind: str, named: Iterable[tuple[str, Tensor]]) -> list[Group]:
    """One group of that kind, or none if there is nothing in it."""
    names_and_params = list(named)
    if not names_and_params:
        return []
    names, params = zip(*names_and_params, strict=True)
    return [{"params": list(params), "kind": kind, "names": list(names)}]


def pairs_of(group: Group) -> Iterator[tuple[str, Tensor, Tensor]]:
    """The name, A and B of every pair of a group of pairs."""
    return zip(group["names"], group["params"][::2], group["params"][1::2], strict=True)


def named(group: Group) -> Iterator[tuple[object, Tensor]]:
    """Every parameter of any group with a name for messages; its number in it for lack of one."""
    names: Iterable[object] = group.get("names", range(len(group["params"])))
    if group["kind"] == PAIRS:
        names = (f"{name}.{role}" for name in group["names"] for role in PAIR)
    return zip(names, group["params"], strict=True)


def check_group(owner: str, group: Group) -> None:
    """Refuse a group that does not say what its parameters are.

    Raises:
        ValueError: if the kind is unknown, a name or a factor is missing, or a pair is none.
    """
    kind, params = group.get("kind"), group["params"]
    if kind not in KINDS or isinstance(params, Tensor):
        raise ValueError(
            f"{owner}: a group must say which of its parameters are pairs; make the groups with "
            "lora_params(model)"
        )
    if len(group.get("names", ())) * (2 if kind == PAIRS else 1) != len(params):
        raise ValueError(f"{owner}: a group of {kind} needs a name for each in names")
    if kind == PAIRS:
        if not group.get("scale", 0.0) > 0.0:
            raise ValueError(f"{owner}: a group of pairs needs their scale, a positive number")
        for name, a, b in pairs_of(group):
            if a.dim() != 2 or b.dim() != 2 or a.shape[0] != b.shape[1]:
                raise ValueError(
                    f"{owner}: {name} is no pair: A must be (r, in) and B (out, r), not "
                    f"{tuple(a.shape)} and {tuple(b.shape)}"
                )


def check_numbers(owner: str, group: Group) -> None:
    """Refuse numbers of a group that no optimiser can mean.

    Raises:
        ValueError: naming the number.
    """
    for name in ("lr", "eps", "weight_decay", "damping"):
        if name in group:
            not_negative(f"{owner}: {name}", group[name])
    rates = {f"betas[{i}]": b for i, b in enumerate(group.get("betas", ()))}
    rates |= {n: group[n] for n in ("momentum", "square") if group.get(n) is not None}
    for name, rate in rates.items():
        if not 0.0 <= rate < 1.0:
            raise ValueError(f"{owner}: {name} must be at least 0 and below 1, not {rate}")


def not_negative(name: str, value: float | Tensor) -> None:
    """Refuse a negative number.

    Raises:
        ValueError: if it is negative, or no number.
    """
    if not value >= 0.0:
        raise ValueError(f"{name}: must not be negative, not {value}")


def check_same(owner: str, groups: list[Group], saved: list[Group]) -> None:
    """Refuse a state that was saved for other parameters.

    Raises:
        ValueError: naming the first that differs, in its name or its scale.
    """
    ours = [(g["kind"], name) for g in groups for name in g["names"]]
    theirs = [(g.get("kind"), name) for g in saved for name in g.get("names", ())]
    for mine, other in zip(ours, theirs, strict=False):
        if mine != other:
            raise ValueError(
                f"{owner}: the state was saved for {other[1]} ({other[0]}) where {mine[1]} "
                f"({mine[0]}) is; make the groups from the same model"
            )
    for group, old in zip(groups, saved, strict=False):
        if group.get("scale") != old.get("scale"):
            raise ValueError(
                f"{owner}: the state was saved for pairs of scale {old.get('scale')}, and the "
                f"model has {group.get('scale')}; take the same lora_alpha and r"
            )
    if len(ours) != len(theirs):
        raise ValueError(
            f"{owner}: the state was saved for {len(theirs)} names and there are {len(ours)}; make "
            "the groups from the same model"
        )


def run_closure(closure: Callable[[], Any] | None) -> Any:
    """The loss of a closure that computes gradients, or None without one."""
    if closure is None:
        return None
    with torch.enable_grad():
        return closure()
