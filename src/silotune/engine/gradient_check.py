"""The gradient check: before any record is read, prove what the mechanism relies on.

On made-up records, with factors that are not zero, in the model as it will be used:

- coverage: the rows in the sink (where no single record is hidden: what trains in their place)
  sum up to what ordinary autograd gives, for every tensor that requires a gradient; each of them
  has one, and it is not zero (of experts in one tensor, that of some expert);
- history (under privacy): a record gives what it gave before others went through the model;
- isolation (where single records are hidden): its row is that of the record alone and unpadded
  (``isolation.py``), and no hard choice could make it another (``hard_choices.py``).

So a tensor that trains outside the sink, a layer that is seen twice, a module that mixes examples,
one that keeps something, or a forward pass that is not deterministic is found here, by what it does
and not by its name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor

from silotune.adapters import AdaptedModel
from silotune.core import Batch, Factors, Key, Role, generator
from silotune.core.expert_matrix import stack_key
from silotune.core.half_products import is_halved
from silotune.objectives import PerExampleLoss

from . import isolation
from .batches import lengths, to_device
from .isolation import LARGEST, ROUNDING, Coupling, Lineup
from .passes import Found, GradientCheckError, Passes

MICRO_BATCH = 32
"""Records that go through the model at once, if nothing else is said."""

SMALL = 0.02
"""Standard deviation of what is added to the factors, so that no gradient is 0 as B is."""

DRAWS = 32
"""Factors that a tensor without a gradient is tried at: a router may leave it out at the first.
Routers are drawn further from their birth each time."""

EXACT, COARSE = 2e-3, 0.15
"""Largest error of the sink, relative to the largest number of a tensor's gradient: in float32,
and where a part of the model is in half precision."""


def check_gradients(
    adapted: AdaptedModel,
    objective: PerExampleLoss,
    records: Batch,
    roles: Collection[Role],
    *,
    fixed: Collection[Key] = (),
    idle: Collection[Key] = (),
    unit: Literal["example", "client", "none"] = "example",
    micro_batch: int = MICRO_BATCH,
) -> Coupling:
    """Prove that what is trained by is the gradient, of single records where these are hidden.

    Args:
        adapted: the model as it will be trained; tensors and buffers are put back afterwards.
        objective: gives the losses.
        records: made-up, two or more, of different lengths, padded where ``attention_mask`` is 0.
        roles: what the plan trains.
        fixed: tensors of these roles that never move.
        idle: tensors that are known to decide nothing, whose gradient may be zero.
        unit: what is hidden: of a client's own records nobody need be kept apart.
        micro_batch: the most records that go through the model at once.

    Returns:
        The coupling that was measured; none is where records go through the model one by one, or
        are not hidden.

    Raises:
        GradientCheckError: naming the tensors and the reason. ``RecordsMixError`` if records change
            one another, ``StateKeptError`` if some is kept of them.
    """
    kept = adapted.extract()
    adapted.train_only(roles, fixed)
    adapted.model.train()
    passes = Passes(adapted, objective, to_device(records, adapted.device))
    lineup = Lineup.of(lengths(passes.records), micro_batch)
    try:
        with buffers_restored(adapted) as buffers:
            _refuse_strangers(adapted)
            _check_coverage(passes, kept, lineup, idle, by_rows=unit == "example")
            adapted.load(drawn(kept, SMALL))
            apart = unit == "example" and micro_batch > 1
            moved = 0.0 if unit == "none" else _moved(passes, buffers, lineup, apart=apart)
            if not apart:
                return Coupling(together=micro_batch)
            small_norm = _norm(adapted)
            adapted.load(drawn(kept, LARGEST))
            return Coupling(
                together=micro_batch,
                others=len(lineup.beside),
                moved=moved,
                small_norm=small_norm,
                moved_at_large=isolation.coupling(passes, lineup),
                large_norm=_norm(adapted),
            )
    finally:
        adapted.load(kept)
        for parameter in adapted.tensors.values():
            parameter.grad = None


def _check_coverage(
    passes: Passes, kept: Factors, lineup: Lineup, idle: Collection[Key], *, by_rows: bool
) -> None:
    """Rows sum up to the whole, and every tensor has a gradient at some of the factors tried."""
    adapted = passes.adapted
    which = lineup.short
    tolerance = COARSE if is_coarse(adapted) else EXACT
    waiting = {key for key, p in adapted.tensors.items() if p.requires_grad}
    for draw in range(DRAWS):
        adapted.load(drawn(kept, SMALL, draw))
        whole = passes.by_autograd(which, weighed=True)
        found = _summed(passes, which) if by_rows else passes.by_sums(which, weighed=True)
        _refuse_random(whole, found, tolerance)
        if missing := waiting - found.gradients.keys():
            kind = "per-example gradient" if by_rows else "gradient"
            raise GradientCheckError(
                f"{_names(missing)}: trained, but no {kind} arrives; the model does "
                "not use it, or uses its weight without calling the layer"
            )
        _check_sums(found.gradients, whole.gradients, tolerance)
        arrived = {stack_key(key) for key, total in found.gradients.items() if total.any()}
        waiting = {key for key in waiting if stack_key(key) not in arrived}
        if not waiting - set(idle):
            return
    raise GradientCheckError(
        f"{_names(waiting - set(idle))}: trained, but its gradient is zero, so it would learn "
        "nothing and only take noise; its output may not be used, or the base model passes no "
        "gradient back (a quantised one needs a device that can)"
    )


def _moved(passes: Passes, buffers: Mapping[str, Tensor], lineup: Lineup, *, apart: bool) -> float:
    """Records alone, then together, then alone again; the coupling, where they must keep apart."""
    alone = {i: passes.alone(i) for i in lineup.everyone}
    before = {i: alone[i] for i in lineup.varied}
    scored = isolation.scores(passes, lineup.varied)
    again = isolation.relative(passes.alone(lineup.longest)[None], alone[lineup.longest][None])
    tolerance = max(ROUNDING, 10 * float(again.norm()))  # kernels of some devices are not exact
    moved = 0.0
    if apart:
        moved = isolation.check_apart(passes, alone, lineup)
    else:
        passes.by_autograd([*lineup.beside, lineup.longest])
    isolation.refuse_state(passes, before, scored, buffers, tolerance)
    return moved


def is_coarse(adapted: AdaptedModel) -> bool:
    """Whether some number of the model has fewer bits than float32, or some product."""
    return any(map(is_halved, adapted.model.modules())) or any(
        torch.finfo(p.dtype).bits < 32 for p in adapted.model.parameters() if p.is_floating_point()
    )


@contextmanager
def buffers_restored(adapted: AdaptedModel) -> Iterator[Mapping[str, Tensor]]:
    """What modules keep is as it was afterwards; gives it by name."""
    before = {name: b.detach().clone() for name, b in adapted.model.named_buffers()}
    try:
        yield before
    finally:
        for name, buffer in adapted.model.named_buffers():
            if name in before and buffer.shape == before[name].shape:
                buffer.copy_(before[name])


def _refuse_strangers(adapted: AdaptedModel) -> None:
    """Every parameter that requires a gradient must be one of ours."""
    ours = {id(p) for p in adapted.tensors.values()}
    strangers = [
        name
        for name, p in adapted.model.named_parameters()
        if p.requires_grad and id(p) not in ours
    ]
    if strangers:
        raise GradientCheckError(
            f"{', '.join(strangers[:3])}: trained, but neither clipped nor noised; freeze it"
        )


def _refuse_random(one: Found, other: Found, tolerance: float) -> None:
    if not torch.allclose(one.losses, other.losses, rtol=tolerance, atol=tolerance):
        raise GradientCheckError(
            "the same records have other losses in a second pass: the model's forward pass is "
            "random, or keeps something from pass to pass"
        )


def _summed(passes: Passes, which: Sequence[int]) -> Found:
    """Rows, added up."""
    losses, rows = passes.by_sink(which, weighed=True)
    return Found(losses, {key: row.sum(dim=0) for key, row in rows.items()})


def _check_sums(sums: Mapping[Key, Tensor], whole: Mapping[Key, Tensor], tolerance: float) -> None:
    """Against autograd; a gradient that is zero but for rounding may be any such."""
    found = (*sums.values(), *whole.values())
    largest = max((float(g.abs().max()) for g in found), default=0.0)
    for key, total in sums.items():
        reference = whole.get(key, torch.zeros_like(total))
        size = max(float(reference.abs().max()), float(total.abs().max()), 1e-4 * largest, 1e-12)
        gap = float((total - reference).abs().max()) / size
        if not gap <= tolerance:
            raise GradientCheckError(
                f"{key}: the gradients are off by {gap:.1%} from what autograd gives"
            )


def drawn(factors: Factors, spread: float, draw: int = 0) -> Factors:
    """Random numbers added, so that no gradient vanishes because B is zero."""
    wider = {Role.GATE: 1 + draw}
    return Factors(
        {k: t + spread * wider.get(k.role, 1) * _noise(k, t, draw) for k, t in factors.items()}
    )


def _noise(key: Key, t: Tensor, draw: int) -> Tensor:
    address = (key, draw) if draw else (key,)
    return torch.randn(t.shape, generator=generator("coverage", *address))


def _norm(adapted: AdaptedModel) -> float:
    return float(torch.stack([p.detach().double().norm() for p in adapted.tensors.values()]).norm())


def _names(keys: Collection[Key] | Mapping[Key, object]) -> str:
    return ", ".join(map(str, sorted(keys)[:3]))
