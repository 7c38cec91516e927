"""Tail average: a run ends with the mean of its last states in place of the last one.

Suffix averaging (Rakhlin et al. 2012, arXiv 1109.5647): rounds go on from the last state, and only
what is scored, saved and handed over is the mean. It is a function of states that are released
anyway, so that nothing is paid for it.

The mean is that of the models' weights. What moves by itself beside what stays is averaged as it
is. Where both factors of a pair move, or are written in another basis, E[B A] is not E[B] E[A]: the
mean product is added to the base, and beside it B = 0, or A where B never moves. With R_t what a
round added to the base, and n states of the tail,

    E[theta] = sum_t theta_t / n            E[B A] = sum_t B_t A_t / n
    E[F]     = F_n - sum_t (t - 1) R_t / n  t = 1..n, F_n all that was added so far

These three sums, in float64, stay in the server's memory, so that a resumed run ends in the same
bits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce

import torch
from torch import Tensor

from silotune.core import Change, Factors, GlobalState, Key, Role
from silotune.linalg import LowRank, Matrix, add

NAME = "tail average"
"""What the names of its numbers in the server's memory begin with."""

SUM, PRODUCT, ADDED = (f"{NAME} {what}" for what in ("sum", "product", "added"))

EXACT = 1e-9
"""A share of rounds is a whole number of them up to this."""


def tail_start(share: float, rounds: int) -> int:
    """How many of so many rounds are before a share of the last ones; it has one at least."""
    return rounds - max(1, math.ceil(share * rounds - EXACT))


@dataclass(frozen=True, kw_only=True)
class TailAverage:
    """The mean of the states after the last rounds.

    Attributes:
        start: how many rounds are before those that count.
        roles: what some round moves.
        fixed: tensors that never move, whatever their role.
        turning: whether pairs begin afresh, or are written in another basis.
    """

    start: int
    roles: frozenset[Role]
    fixed: frozenset[Key] = frozenset()
    turning: bool = False

    def number(self, state: GlobalState) -> int:
        """How many states of the tail there have been; 0 before it begins."""
        return max(0, state.round - self.start)

    def noted(self, after: GlobalState) -> GlobalState:
        """The state after a round, with itself in the sums if it is of the tail."""
        number = self.number(after)
        if not number:
            return after
        memory = dict(after.memory)
        for key, tensor in self._alone(after.factors).items():
            name, own = f"{SUM} {key}", tensor.double()
            memory[name] = memory[name] + own if name in memory else own
        for site in self._by_product(after.factors):
            pair = after.factors.pair(site).to(torch.float64)
            if pair.left.any() and pair.right.any():
                _add(memory, f"{PRODUCT} {site}", pair)
        for site, increment in after.latest.folded.items() if number > 1 else ():
            _add(memory, f"{ADDED} {site}", _double(increment) * (number - 1.0))
        return replace(after, memory=memory)

    def mean(self, state: GlobalState) -> GlobalState:
        """The mean of all states of the tail so far; before there are two, the state itself.

        Nobody holds anything of it, and the server's memory is not in it.

        Args:
            state: after a round, as ``noted`` gave it.
        """
        number = self.number(state)
        if number < 2:
            return state
        memory = state.memory
        moved = {
            key: (memory[f"{SUM} {key}"] / number).to(tensor.dtype)
            for key, tensor in self._alone(state.factors).items()
        }
        by_product = self._by_product(state.factors)
        for key in map(self._emptied, by_product):
            moved[key] = torch.zeros_like(state.factors[key])
        factors = state.factors.updated(moved)
        folded = dict(state.folded)
        for site in dict.fromkeys([*by_product, *folded]):
            parts = [_double(folded[site])] if site in folded else []
            parts += [m * (1.0 / number) for m in _read(memory, f"{PRODUCT} {site}")]
            parts += [m * (-1.0 / number) for m in _read(memory, f"{ADDED} {site}")]
            if parts:
                folded[site] = reduce(add, parts).to(_type(factors, site))
        return GlobalState(
            round=state.round,
            factors=factors,
            folded=folded,
            drawn={k: s for k, s in state.drawn.items() if k not in moved},
            latest=Change(keys=frozenset(factors), folded=folded),
        )

    def folds(self, rounds: int, first: Factors) -> bool:
        """Whether the mean after so many rounds may add to the base where its last state does not.

        Args:
            rounds: that are behind it.
            first: the tensors before the first round.
        """
        return rounds - self.start > 1 and bool(self._by_product(first))

    def _by_product(self, factors: Factors) -> list[str]:
        """Sites whose pairs are averaged as products."""

        def moving(site: str) -> int:
            pair = {Key(site, role) for role in (Role.A, Role.B) if role in self.roles}
            return len(pair - self.fixed)

        return [s for s in factors.pair_sites() if moving(s) > (0 if self.turning else 1)]

    def _emptied(self, site: str) -> Key:
        """Which factor of a site is 0 where the product is in the base: one that moves."""
        b = Key(site, Role.B)
        return b if Role.B in self.roles and b not in self.fixed else Key(site, Role.A)

    def _alone(self, factors: Factors) -> Factors:
        """What is averaged as it is."""
        sites = self._by_product(factors)
        pairs = {Key(site, role) for site in sites for role in (Role.A, Role.B)}
        return factors.only(self.roles).without(self.fixed | pairs)


PARTS = ("left", "right", "whole")
"""How the names of a matrix's tensors end: of a product, or of the matrix itself."""


def _add(memory: dict[str, Tensor], name: str, matrix: Matrix) -> None:
    """Add a matrix to the one of that name, which is nothing at first."""
    total = reduce(add, [*_read(memory, name), matrix])
    for part in PARTS:
        memory.pop(f"{name} {part}", None)
    if isinstance(total, LowRank):
        memory |= {f"{name} left": total.left, f"{name} right": total.right}
    else:
        memory[f"{name} whole"] = total


def _read(memory: Mapping[str, Tensor], name: str) -> list[Matrix]:
    """The matrix of that name, if there is one."""
    left, right, whole = (memory.get(f"{name} {part}") for part in PARTS)
    if left is not None and right is not None:
        return [LowRank(left, right)]
    return [] if whole is None else [whole]


def _double(matrix: Matrix) -> Matrix:
    return matrix.to(torch.float64)


def _type(factors: Factors, site: str) -> torch.dtype:
    """Of the site's own tensors."""
    return next(t.dtype for k, t in factors.items() if k.site == site)
