"""The prefix check: a model that is fed what its frozen prefix gives computes the same as before.

On made-up records, before any real one is read: what the prefix gives does not change with the
factors; of a record alone it is what it is beside others; and losses, gradients and scores are the
same whether a batch brings it or not, padding and all. Where one of these fails the memory is not
used, and the reason is said.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from silotune.adapters import AdaptedModel
from silotune.adapters.prefix import PREFIX, NoPrefixError
from silotune.core import Batch, Factors, Key, Role, generator
from silotune.core.masks import DECODER, masks_of
from silotune.objectives import PerExampleLoss

from .batches import lengths, taken, to_device
from .gradient_check import COARSE, is_coarse
from .passes import Found, GradientCheckError, Passes, refused_in_words
from .remembered import Remembered, in_memory

SAME = 1e-4
"""What rounding in float32 may do to states, losses and gradients, relative to the largest."""


@dataclass(frozen=True, kw_only=True)
class PrefixFit:
    """What was found of a model's frozen prefix.

    Attributes:
        refused: why it may not be remembered; empty if it may.
        bytes_a_token: that a position takes.
        positions: of a record; 0 where records have lengths.
    """

    refused: str = ""
    bytes_a_token: int = 0
    positions: int = 0

    def bytes_of(self, lengths: Sequence[int]) -> int:
        """That records of these lengths take."""
        return self.bytes_a_token * (self.positions * len(lengths) or sum(lengths))


def check_prefix(
    adapted: AdaptedModel,
    objective: PerExampleLoss,
    records: Batch,
    roles: Collection[Role],
    *,
    fixed: Collection[Key] = (),
    by_rows: bool = True,
    apart: bool = False,
) -> PrefixFit:
    """See whether what the frozen prefix gives may be remembered.

    Args:
        adapted: the model, without dropout; tensors are put back afterwards.
        objective: gives losses and scores.
        records: made-up, of different lengths, padded where ``attention_mask`` is 0.
        roles: what the plan trains.
        fixed: tensors of these roles that never move.
        by_rows: whether gradients of single records are trained by.
        apart: whether records go through the model one by one.
    """
    if adapted.prefix is None:
        return PrefixFit(refused="adapters reach the lowest layer, or layers are in no one list")
    if any(mask.startswith(DECODER) for mask in masks_of(records)):
        return PrefixFit(refused="it has an encoder and a decoder")
    kept, training = adapted.extract(), adapted.model.training
    adapted.train_only(roles, fixed)
    records = to_device(records, adapted.device)
    try:
        with refused_in_words():
            passes = Passes(adapted, objective, records)
            return _compared(passes, kept, by_rows=by_rows, apart=apart)
    except (NoPrefixError, GradientCheckError) as error:
        return PrefixFit(refused=str(error))
    finally:
        adapted.load(kept)
        adapted.model.train(training)
        for parameter in adapted.tensors.values():
            parameter.grad = None


def _compared(passes: Passes, kept: Factors, *, by_rows: bool, apart: bool) -> PrefixFit:
    adapted = passes.adapted
    tolerance = COARSE if is_coarse(adapted) else SAME
    everyone = range(len(passes.records["labels"]))
    adapted.load(_drawn(kept, "before"))
    before = _brought(_remembering(passes, together=len(everyone)).batch(everyone))
    adapted.load(_drawn(kept, "after"))
    after = _brought(_remembering(passes, together=len(everyone)).batch(everyone))
    alone = _remembering(passes, together=1).batch(everyone)
    if not all(map(torch.equal, before, after)):
        return PrefixFit(refused="something below the lowest adapted layer is trained, too")
    if _apart(_brought(alone), after, tolerance):
        return PrefixFit(refused="what its layers make of a record depends on those beside it")
    fed = replace(passes, records=to_device(alone, adapted.device))
    together = [[i] for i in everyone] if apart else [list(everyone)]
    if not all(_alike(passes, fed, which, tolerance, by_rows=by_rows) for which in together):
        return PrefixFit(refused="it computes something else when its lower layers do not")
    states = alone[PREFIX]
    return PrefixFit(
        bytes_a_token=states.shape[2] * states.element_size(),
        positions=0 if "attention_mask" in alone else states.shape[1],
    )


def _alike(
    plain: Passes, fed: Passes, which: Sequence[int], tolerance: float, *, by_rows: bool
) -> bool:
    """Whether losses, gradients and scores are the same on both paths."""
    adapted = plain.adapted
    adapted.model.train()

    def found(passes: Passes) -> Found:
        return (passes.by_sink if by_rows else passes.by_autograd)(which, weighed=True)

    one, other = found(plain), found(fed)
    if one.gradients.keys() != other.gradients.keys():
        return False
    mine, others = ([f.gradients[key] for key in one.gradients] for f in (one, other))
    if _apart([one.losses], [other.losses], tolerance) or _apart(mine, others, tolerance):
        return False
    adapted.model.eval()
    with torch.inference_mode():
        mine, others = (
            list(adapted.measure(p.objective.measure, taken(p.records, which)).totals.values())
            for p in (plain, fed)
        )
    return not _apart(mine, others, tolerance)


def _brought(batch: Batch) -> list[Tensor]:
    """What the prefix gave of a batch, by row."""
    return [t for name, t in batch.items() if name.endswith(PREFIX)]


def _apart(found: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float) -> bool:
    """Whether numbers differ by more than a part of the largest of them, or are none."""
    pairs = [
        (a.detach().double().cpu(), b.detach().double().cpu())
        for a, b in zip(found, expected, strict=True)
    ]
    largest = max(float(b.abs().max()) for _, b in pairs)
    gap = max(float((a - b).abs().max()) for a, b in pairs)
    return not gap <= tolerance * max(largest, 1e-12)


@dataclass(frozen=True, eq=False)
class _MadeUp:
    """Made-up records as examples."""

    records: Batch

    @property
    def lengths(self) -> Sequence[int]:
        return lengths(self.records)

    def batch(self, indices: Sequence[int]) -> Batch:
        return {name: t.cpu() for name, t in taken(self.records, indices).items()}


def _remembering(passes: Passes, together: int) -> Remembered:
    made_up = _MadeUp(passes.records)
    return Remembered(made_up, passes.adapted, passes.objective, together, in_memory)


def _drawn(factors: Factors, name: str) -> Factors:
    """Random numbers added, of a size that changes what every adapted layer gives."""
    return Factors(
        {
            k: t + 0.1 * torch.randn(t.shape, generator=generator("prefix", name, k))
            for k, t in factors.items()
        }
    )
