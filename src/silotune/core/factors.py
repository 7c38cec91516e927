"""Factors: the numbers of an adapted model, named by site and role.

Shapes: out, in = features of a site, r = rank.
"""

from __future__ import annotations

import hashlib
from collections.abc import (
    Callable,
    Collection,
    ItemsView,
    Iterable,
    Iterator,
    KeysView,
    Mapping,
    ValuesView,
)
from enum import StrEnum
from typing import NamedTuple

import torch
from torch import Tensor

from silotune.linalg import LowRank


class Role(StrEnum):
    """What a tensor does at its site."""

    A = "A"  # (r, in) down-projection
    B = "B"  # (out, r) up-projection
    D = "D"  # (out, in) a whole matrix
    R = "R"  # (r, r) a core between B and A
    M = "M"  # (out,) how much longer rows are than the base's
    GATE = "gate"  # a tensor of a router between adapters
    HEAD = "head"  # a tensor trained and averaged as it is


class Key(NamedTuple):
    """Address of one tensor. ``name`` tells weight and bias of a head apart."""

    site: str
    role: Role
    name: str = ""

    def __str__(self) -> str:
        return ".".join(part for part in self if part)

    @classmethod
    def of(cls, parts: Iterable[str]) -> Key:
        """The key of its three parts, as JSON gives them back.

        Raises:
            ValueError: if they are not three, or the second is no role.
        """
        site, role, name = parts
        return cls(site, Role(role), name)


class Factors(Mapping[Key, Tensor]):
    """An immutable, sorted mapping from keys to tensors. The tensors are never written to.

    So what is asked of them again, digests and norms, is computed once.
    """

    def __init__(self, tensors: Mapping[Key, Tensor]) -> None:
        self._tensors = dict(sorted(tensors.items()))
        self._digests: dict[tuple[Key, ...], str] = {}
        self._norms: dict[Key, float] = {}

    def __getitem__(self, key: Key) -> Tensor:
        return self._tensors[key]

    def __iter__(self) -> Iterator[Key]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def keys(self) -> KeysView[Key]:
        """In order."""
        return self._tensors.keys()

    def values(self) -> ValuesView[Tensor]:
        """In the order of their keys."""
        return self._tensors.values()

    def items(self) -> ItemsView[Key, Tensor]:
        """In the order of their keys."""
        return self._tensors.items()

    def __repr__(self) -> str:
        return f"Factors({', '.join(f'{k}: {tuple(t.shape)}' for k, t in self.items())})"

    def map(self, f: Callable[[Tensor], Tensor]) -> Factors:
        """Apply ``f`` to every tensor."""
        return Factors({k: f(t) for k, t in self.items()})

    def zip(self, other: Factors, f: Callable[[Tensor, Tensor], Tensor]) -> Factors:
        """Combine two trees of equal keys.

        Raises:
            ValueError: if the keys differ.
        """
        if self.keys() != other.keys():
            differ = ", ".join(str(k) for k in sorted(self.keys() ^ other.keys()))
            raise ValueError(f"tensors differ: {differ}")
        return Factors({k: f(t, other[k]) for k, t in self.items()})

    def lerp(self, towards: Factors, step: float) -> Factors:
        """``x + step (t - x)`` for every tensor t of ``towards``, computed in float64.

        Args:
            towards: some of these keys.
            step: 0 stays, 1 arrives.

        Returns:
            Those keys, each tensor in the type that it has here.
        """
        start = {key: self[key].double() for key in towards}
        moved = {key: x + step * (towards[key].double() - x) for key, x in start.items()}
        return Factors({key: tensor.to(self[key].dtype) for key, tensor in moved.items()})

    def only(self, roles: Collection[Role]) -> Factors:
        """The tensors of the given roles."""
        return Factors({k: t for k, t in self.items() if k.role in roles})

    def without(self, keys: Collection[Key]) -> Factors:
        """All tensors but those at ``keys``."""
        return Factors({k: t for k, t in self.items() if k not in keys})

    def updated(self, other: Mapping[Key, Tensor]) -> Factors:
        """This tree with the tensors of ``other`` replacing its own."""
        return Factors({**self, **other})

    def pair_sites(self) -> list[str]:
        """Sites where both A and B are present."""
        return [k.site for k in self if k.role is Role.B and Key(k.site, Role.A) in self]

    def pair(self, site: str) -> LowRank:
        """``B @ A`` at ``site``, unscaled, as a product; ``B R @ A`` where there is a core."""
        left, core = self[Key(site, Role.B)], self.get(Key(site, Role.R))
        return LowRank(left if core is None else left @ core, self[Key(site, Role.A)])

    def cut(self, rank: int | None) -> Factors:
        """Every pair's first ``rank`` columns of B and rows of A; None for all of them."""
        if rank is None:
            return self
        start: dict[Role, tuple[slice, ...]] = {
            Role.A: (slice(rank),),
            Role.B: (slice(None), slice(rank)),
        }
        return Factors({k: t[start[k.role]] if k.role in start else t for k, t in self.items()})

    def padded(self, rank: int) -> Factors:
        """Every pair filled up to that rank with columns of B and rows of A that are zero."""

        def filled(key: Key, t: Tensor) -> Tensor:
            axis = {Role.A: 0, Role.B: 1}.get(key.role)
            if axis is None or t.shape[axis] == rank:
                return t
            lacking = list(t.shape)
            lacking[axis] = rank - t.shape[axis]
            return torch.cat([t, t.new_zeros(lacking)], dim=axis)

        return Factors({key: filled(key, t) for key, t in self.items()})

    def with_b_times(self, factor: float) -> Factors:
        """Every B multiplied, so that the products are: a pair written in another scale."""
        if factor == 1.0:
            return self
        return Factors({k: t * factor if k.role is Role.B else t for k, t in self.items()})

    def num_elements(self) -> int:
        """How many numbers there are in all."""
        return sum(t.numel() for t in self.values())

    def norm(self, key: Key) -> float:
        """L2 norm of one tensor, in float64; not finite if a number or its square is not."""
        if key not in self._norms:
            tensor = self[key].detach()
            self._norms[key] = float(torch.linalg.vector_norm(tensor, dtype=torch.float64))
        return self._norms[key]

    def digest(self, keys: Collection[Key] | None = None) -> str:
        """SHA-256 over keys, shapes, types and bytes: equal on every machine or not the same.

        Args:
            keys: of the tensors that count; None for all.
        """
        which = tuple(self if keys is None else sorted(keys))
        if which not in self._digests:
            self._digests[which] = self._digested(which)
        return self._digests[which]

    def _digested(self, keys: Collection[Key]) -> str:
        h = hashlib.sha256()
        for key in keys:
            tensor = self[key]
            h.update(f"{key}|{tuple(tensor.shape)}|{tensor.dtype}\n".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            h.update(flat.view(torch.uint8).numpy().tobytes())
        return h.hexdigest()
