"""The probe: which linear maps a model uses, and where the records lie in what they read.

Made-up records go through the model, then again with one of them replaced by another of the same
length. What a layer reads of that record changes and nothing else does: the axis along which this
is so, and in which order, is where its records lie. What changes nowhere is broadcast over the
batch (relative positions); what changes everywhere, or reads other shapes, mixes records or chooses
among them (experts). Nothing is known of an architecture but what it does.

What is found here is only where to look: that rows taken so are those of single records is proved
by the gradient check, as for all others.

Shapes: n records.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from silotune.core import Batch, RecordAxis, Site

RECORDS = 3
"""Records that go through the model at once: no size of a model's own, as a power of two may be."""

LENGTHS = (7,) * (2 * RECORDS)
"""Tokens of those, and of the ones that take their places."""

_CHANGED = 1e-4
"""What rounding cannot do to what a layer reads, relative to its largest number."""


@dataclass(frozen=True)
class Probed:
    """What a probe found.

    Attributes:
        records: by module, where they lie in what it reads; a module that is not here reads
            something that cannot be told apart by record.
        used: modules whose output the losses depend on, whether or not a gradient arrives there.
        mixing: modules that read what each record moves beyond any rows of its own, though shapes
            stay: something before them mixes records.
    """

    records: Mapping[str, RecordAxis]
    used: frozenset[str]
    mixing: frozenset[str] = frozenset()


def probe(
    model: nn.Module,
    names: Collection[str],
    losses: Callable[[nn.Module, Batch], Tensor],
    records: Batch,
) -> Probed:
    """Find out how a frozen model uses some of its modules.

    Args:
        model: without dropout, its heads not zero; left as it was.
        names: of modules with one input.
        losses: of a batch, (n,).
        records: ``2 RECORDS`` made-up ones of equal lengths.
    """
    first = _picked(records, range(RECORDS))
    whole = _reads(model, names, losses, first)
    changed = []
    for i in range(RECORDS):
        which = [RECORDS + i if i == j else j for j in range(RECORDS)]
        changed.append(_reads(model, names, losses, _picked(records, which)).inputs)
    axes = {name: _axis(whole.inputs[name], [c[name] for c in changed]) for name in names}
    found = {name: axis for name, axis in axes.items() if axis is not None}
    mixing = frozenset(n for n in names if _mixes(whole.inputs[n], [c[n] for c in changed]))
    deaf = [name for name in names if name not in whole.used]
    used = whole.used | _needed(model, deaf, losses, first)
    return Probed(records=found, used=used, mixing=mixing)


@torch.no_grad()
def _needed(
    model: nn.Module,
    names: Collection[str],
    losses: Callable[[nn.Module, Batch], Tensor],
    batch: Batch,
) -> frozenset[str]:
    """Modules without a gradient whose output moves a loss: something on its way lets none back."""
    before = losses(model, batch)

    def moves(moved: Collection[str]) -> bool:
        hooks = [
            model.get_submodule(name).register_forward_hook(lambda _, args, output: 2 * output + 1)
            for name in moved
        ]
        try:
            return not torch.allclose(losses(model, batch), before, rtol=_CHANGED, atol=0.0)
        finally:
            for hook in hooks:
                hook.remove()

    if not names or not moves(names):
        return frozenset()
    return frozenset(name for name in names if moves([name]))


def placed(sites: Sequence[Site], probed: Probed) -> tuple[Site, ...]:
    """Sites with their records, where these are known; as they were where not."""
    axes = probed.records
    return tuple(replace(s, records=axes[s.name]) if s.name in axes else s for s in sites)


@dataclass(frozen=True)
class _Reads:
    inputs: Mapping[str, list[Tensor]]
    used: frozenset[str]


def _picked(records: Batch, which: Collection[int]) -> Batch:
    return {name: t[torch.tensor(list(which), device=t.device)] for name, t in records.items()}


def _reads(
    model: nn.Module,
    names: Collection[str],
    losses: Callable[[nn.Module, Batch], Tensor],
    batch: Batch,
) -> _Reads:
    """What each module reads, call by call, and which of them the losses depend on."""
    with _watched(model, names) as (inputs, used), torch.enable_grad():
        total = losses(model, batch).sum()
        if total.requires_grad:
            torch.autograd.backward(total)
    return _Reads(inputs, frozenset(used))


@contextmanager
def _watched(
    model: nn.Module, names: Collection[str]
) -> Iterator[tuple[dict[str, list[Tensor]], set[str]]]:
    """Keep what modules read, and the names of those whose output has a gradient."""
    inputs: dict[str, list[Tensor]] = {name: [] for name in names}
    used: set[str] = set()
    zero = torch.zeros((), requires_grad=True)  # so that the frozen model has gradients at all
    hooks, before = [], model.training
    model.train()  # as it will be when gradients are made; statistics of batches are left alone
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
    for name in names:

        def note(
            _: nn.Module,
            args: tuple[Tensor, ...],
            named: Mapping[str, Tensor],
            output: Tensor,
            name: str = name,
        ) -> Tensor:
            [x] = (*args, *named.values())
            inputs[name].append(x.detach().clone())

            def arrives(gradient: Tensor, name: str = name) -> None:
                if gradient.any():
                    used.add(name)

            given = output + zero.to(output)
            if given.requires_grad:  # not where activations are computed again for the gradient
                hooked: Any = given
                hooked.register_hook(arrives)
            return given

        module = model.get_submodule(name)
        hooks.append(module.register_forward_hook(note, with_kwargs=True))
    try:
        yield inputs, used
    finally:
        model.train(before)
        for hook in hooks:
            hook.remove()


def _axis(whole: Sequence[Tensor], changed: Sequence[Sequence[Tensor]]) -> RecordAxis | None:
    """The one layout of all calls of a module; None if there is none."""
    found = {
        _axis_of_call(x, [c[call] if call < len(c) else None for c in changed])
        for call, x in enumerate(whole)
    }
    same_calls = all(len(c) == len(whole) for c in changed)
    return found.pop() if len(found) == 1 and same_calls else None


def _mixes(whole: Sequence[Tensor], changed: Sequence[Sequence[Tensor]]) -> bool:
    """Whether in some call every record moves something, and never rows of its own alone."""
    calls = zip(whole, *changed, strict=False)
    return any(
        all(c.shape == x.shape and _moved(x, c).any() for c in others)
        and _axis_of_call(x, others) is None
        for x, *others in calls
    )


def _axis_of_call(x: Tensor, changed: Sequence[Tensor | None]) -> RecordAxis | None:
    moved = [_moved(x, c) for c in changed if c is not None and c.shape == x.shape]
    if len(moved) < RECORDS or not all(m.any() for m in moved):
        return None
    for records in _candidates(x):
        own = torch.eye(RECORDS, dtype=torch.bool)
        rows = [records.rows(m.unsqueeze(-1), RECORDS).flatten(1).any(dim=1) for m in moved]
        if torch.equal(torch.stack(rows).cpu(), own):
            return records
    return None


def _moved(x: Tensor, other: Tensor) -> Tensor:
    """(...): positions whose features differ."""
    difference = (x.double() - other.double()).abs().amax(dim=-1)
    return difference > _CHANGED * x.double().abs().max().clamp(min=1e-30)


def _candidates(x: Tensor) -> Iterator[RecordAxis]:
    """Layouts that the shape allows, the usual one first."""
    for axis in range(x.dim() - 1):
        size = x.shape[axis]
        if size == RECORDS:
            yield RecordAxis(axis)
        elif size > RECORDS and size % RECORDS == 0:
            yield RecordAxis(axis, "outer")
            yield RecordAxis(axis, "inner")
