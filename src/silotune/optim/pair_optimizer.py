"""Pairs B A of equal shapes, stacked: one batched operation for all of them, no loop over sites.

A pair optimiser moves one such stack at a time. Everything else that trains, and what it leaves to
it, is moved by torch's own optimiser, with this one's groups and state.

All of it acts on gradients that are clipped and noised already, and on tensors made of such
gradients: post-processing, so the privacy guarantee stays as it is. What it does to the *noise* is
another matter. The methods divide by B^T B or by the triangle of B, and while B is near 0, as at
the start of a run, they magnify the noise in the gradient of A, which holds hardly any signal then.

Shapes: out, in = features of a site, r = rank, n = sites of a stack, rows = out or in.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, repeat
from typing import Any, ClassVar

import torch
from torch import Tensor

from silotune.core import Role
from silotune.linalg import NumericalError, eigh

from .base import Moves
from .param_groups import (
    PAIRS,
    Group,
    check_group,
    check_numbers,
    check_same,
    pairs_of,
    run_closure,
)

Memory = dict[str, Any]


@dataclass(frozen=True, eq=False)
class Stack:
    """Pairs of equal shapes and age of which the same factors have a gradient in this step.

    Attributes:
        names: of the sites.
        factors: of every site, A (r, in) and B (out, r).
        state: the optimiser's.
    """

    names: tuple[str, ...]
    factors: Mapping[Role, Sequence[Tensor]]
    state: Mapping[Tensor, Memory]

    @property
    def roles(self) -> frozenset[Role]:
        """The factors that have a gradient."""
        return frozenset(role for role, ps in self.factors.items() if ps[0].grad is not None)

    def values(self, role: Role) -> Tensor:
        """(n, r, in) or (n, out, r)."""
        return torch.stack([p.detach() for p in self.factors[role]])

    def gradients(self, role: Role) -> Tensor:
        """In the shape of ``values``.

        Raises:
            NumericalError: if one is not finite.
        """
        stacked = torch.stack([p.grad for p in self.factors[role] if p.grad is not None])
        if not stacked.isfinite().all():
            bad = stacked.isfinite().flatten(1).all(dim=1).tolist().index(False)
            raise NumericalError(
                f"{self.names[bad]}: the gradient of {role} is not finite; lower the learning rate"
            )
        return stacked

    def replace_gradients(self, role: Role, gradients: Tensor) -> None:
        """Leave other gradients for torch's optimiser, until the step ends."""
        for p, g in zip(self.factors[role], gradients, strict=True):
            p.grad = g

    def move(self, role: Role, steps: Tensor) -> None:
        """Add a step to every factor."""
        torch._foreach_add_(list(self.factors[role]), list(steps.unbind()))

    @contextmanager
    def named(self) -> Iterator[None]:
        """What cannot be computed is told with the name of a site."""
        try:
            yield
        except NumericalError as error:
            raise NumericalError(
                f"{self.names[0]} and its like: {error}; lower the learning rate"
            ) from error

    def memory(self, role: Role) -> Memory:
        """What the optimiser remembers with every factor, its tensors stacked; empty at first."""
        each = [self.state[p] for p in self.factors[role]]
        return {
            name: _stacked([memory[name] for memory in each]) if torch.is_tensor(value) else value
            for name, value in each[0].items()
        }

    def remember(self, role: Role, memory: Memory) -> None:
        """Keep stacked tensors (n, ..), and numbers that all have in common, for the next step.

        Every tensor is kept contiguous, so that one that was saved and loaded has the same strides,
        and the next step the same bits.
        """
        each = [self.state[p] for p in self.factors[role]]
        for name, value in memory.items():
            tensor = torch.is_tensor(value)
            if tensor and name in each[0] and each[0][name]._base is value:
                continue  # changed in place, or not at all
            parts = value.contiguous().unbind() if tensor else repeat(value, len(each))
            for own, part in zip(each, parts, strict=True):
                own[name] = part


class PairOptimizer(torch.optim.Optimizer):
    """Moves stacks of pairs, and lets torch's AdamW move the rest.

    Groups are those of ``lora_params``; every number in them is read at every step, so any of
    torch's schedulers works. Memory lives in ``state[parameter]``, a pair's with its own factors. A
    pair without gradients stays, and remembers what it did. Gradients are left as they were.
    Hooks come before everything else, as in all of torch's optimisers.

    Attributes:
        moves_pairs: which factors of a pair must have a gradient.
        rest_defaults: numbers of groups of kind ``rest`` that differ from the pairs'.
        in_float64: what is remembered in float64 whatever the parameter's type is.
    """

    moves_pairs: ClassVar[Moves]
    rest_defaults: ClassVar[Mapping[str, object]] = {}
    in_float64: ClassVar[frozenset[str]] = frozenset()

    def add_param_group(self, param_group: Group) -> None:
        """Take up one more group, as ``lora_params`` makes them.

        Raises:
            ValueError: if it does not say what its parameters are, or a number makes no sense.
        """
        check_group(type(self).__name__, param_group)
        own = self.rest_defaults if param_group["kind"] != PAIRS else {}
        check_numbers(type(self).__name__, {**self.defaults, **own, **param_group})
        super().add_param_group({**own, **param_group})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move everything that has a gradient.

        Args:
            closure: computes gradients anew and returns the loss.

        Returns:
            The closure's loss, or None without one.

        Raises:
            NumericalError: if a gradient is not finite, or the pair's small matrices are not.
            ValueError: if a pair has gradients of other factors than the method moves.
        """
        loss = run_closure(closure)
        given = [(p, p.grad) for group in self._of_pairs() for p in group["params"]]
        try:
            self.move_pairs()
            self.move_rest()
        finally:
            for p, gradient in given:
                if p.grad is not gradient:
                    p.grad = gradient
        return loss

    def move_pairs(self) -> None:
        """Move every pair, a stack at a time."""
        for stack, group in self.stacks():
            with stack.named():
                self.move(stack, group)

    def stacks(self) -> Iterator[tuple[Stack, Group]]:
        """Every pair that has a gradient, in stacks, with the numbers of its group.

        Raises:
            ValueError: if a pair has gradients of other factors than the method moves.
        """
        for group in self._of_pairs():
            for stack in self._stacks(group):
                self._check(stack, group)
                yield stack, group

    def move(self, stack: Stack, group: Group) -> None:
        """Move a stack, or replace its gradients; nothing where torch's optimiser does it all."""

    def needs(self, group: Group) -> Moves:
        """Which factors must have a gradient, in this group."""
        return self.moves_pairs

    def for_torch(self, group: Group) -> list[Group]:
        """What torch's optimiser moves of a group, with its numbers."""
        return [] if group["kind"] == PAIRS else [group]

    def move_rest(self) -> None:
        """A step of torch's AdamW."""
        step_with(self._adamw, self._groups_for_torch(), self.state)

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from where ``state_dict`` was taken, to the bit; nothing is shared with it.

        Raises:
            ValueError: if it was taken of other parameters.
        """
        check_same(type(self).__name__, self.param_groups, state_dict["param_groups"])
        own = deepcopy(dict(state_dict))
        super().load_state_dict(own)
        numbers = chain.from_iterable(group["params"] for group in own["param_groups"])
        for number, p in zip(numbers, self._all(), strict=True):  # torch has cast to p's type
            saved = own["state"].get(number, {})
            for name in self.in_float64 & saved.keys():
                self.state[p][name] = saved[name].to(p.device)

    @cached_property
    def _adamw(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW([torch.zeros(0)])

    def _of_pairs(self) -> Iterator[Group]:
        return (group for group in self.param_groups if group["kind"] == PAIRS)

    def _all(self) -> Iterator[Tensor]:
        return chain.from_iterable(group["params"] for group in self.param_groups)

    def _groups_for_torch(self) -> list[Group]:
        return [part for group in self.param_groups for part in self.for_torch(group)]

    def _check(self, stack: Stack, group: Group) -> None:
        needed = self.needs(group)
        if not needed.allow(stack.roles):
            raise ValueError(
                f"{stack.names[0]}: a pair optimiser needs gradients of {needed} in every "
                f"step, and got {' and '.join(sorted(stack.roles))}"
            )

    def _stacks(self, group: Group) -> list[Stack]:
        """Every pair with a gradient, by shape, type, place, age and which gradients there are."""
        alike: dict[object, list[tuple[str, Tensor, Tensor]]] = defaultdict(list)
        for name, a, b in pairs_of(group):
            pair = a, b
            trained = tuple(p.grad is not None for p in pair)
            if any(trained):
                kind = tuple((p.shape, p.dtype, p.device, self._age(p)) for p in pair)
                alike[kind, trained].append((name, a, b))
        return [self._stack(found) for found in alike.values()]

    def _stack(self, pairs: Sequence[tuple[str, Tensor, Tensor]]) -> Stack:
        names, of_a, of_b = zip(*pairs, strict=True)
        return Stack(names, {Role.A: of_a, Role.B: of_b}, self.state)

    def _age(self, p: Tensor) -> int:
        """Steps in a pair's own memory; AdamW counts its own, in a tensor."""
        step = self.state[p].get("step", 0) if p in self.state else 0
        return step if isinstance(step, int) else 0


def step_with(
    inner: torch.optim.Optimizer, groups: Sequence[Group], state: defaultdict[Tensor, Any]
) -> None:
    """A step of one of torch's optimisers with numbers and memory that are another's."""
    if groups:
        inner.param_groups = [{**inner.defaults, **group} for group in groups]
        inner.state = state
        inner.step()


def _stacked(parts: Sequence[Tensor]) -> Tensor:
    """(n, ..): the tensor of which the parts are all, in this order, or a copy of them."""
    first, whole = parts[0], parts[0]._base
    if whole is None or whole.shape != (len(parts), *first.shape) or not whole.is_contiguous():
        return torch.stack(list(parts))
    size = first.numel()
    if all(p._base is whole and p.storage_offset() == i * size for i, p in enumerate(parts)):
        return whole
    return torch.stack(list(parts))


@dataclass(frozen=True, eq=False)
class Gram:
    """X^T X of tall matrices X (n, rows, r), as its eigenvalues and eigenvectors in float64.

    An eigenvalue that is 0 but for rounding is 0, so that a factor of lower rank, and B = 0 above
    all, has a pseudo-inverse. Rounding is that of X's own type.
    """

    values: Tensor  # (n, r), not negative
    vectors: Tensor  # (n, r, r), as columns

    def inverse(self, damping: float, like: Tensor) -> Tensor:
        """(X^T X)^+ (n, r, r): with 1 / (value + damping) where a value is not 0."""
        weights = torch.where(self.values > 0, 1.0 / (self.values + damping), 0.0)
        whole: Tensor = (self.vectors * weights.unsqueeze(-2)) @ self.vectors.mT
        return whole.to(like.dtype)


def gram(x: Tensor) -> Gram:
    """Of x (n, rows, r)."""
    x64 = x.double()
    values, vectors = eigh(x64.mT @ x64)
    return Gram(values.where(values > _zero(x) * values[..., -1:], 0.0), vectors)


def _zero(x: Tensor) -> float:
    """Below this part of the largest eigenvalue of X^T X there is nothing but rounding."""
    rows = x.shape[-2]
    return max((rows * torch.finfo(x.dtype).eps) ** 2, rows * torch.finfo(torch.float64).eps)
