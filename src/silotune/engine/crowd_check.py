"""The check of a crowd: records of one pass that meet tensors of their own are kept apart by them.

On made-up records of two clients with unlike factors, before any record is read:

- a record's row is what autograd gives for it alone in a model that holds its client's factors;
- where single records are hidden, it is the same beside others as alone in the same kernels, as
  ``isolation`` has it: a client's records move by no more than rounding with those of another.

Shapes: P trained numbers.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from silotune.adapters import AdaptedModel
from silotune.core import Batch, Factors, Key, Role
from silotune.objectives import PerExampleLoss

from . import isolation
from .batches import lengths, to_device
from .gradient_check import COARSE, EXACT, SMALL, drawn, is_coarse
from .isolation import LARGEST, Coupling, Lineup
from .passes import GradientCheckError, Passes


def check_crowd(
    adapted: AdaptedModel,
    objective: PerExampleLoss,
    records: Batch,
    roles: Collection[Role],
    *,
    coupling: Coupling,
    fixed: Collection[Key] = (),
    unit: Literal["example", "client", "none"],
) -> Coupling:
    """Prove that clients may train together.

    Args:
        adapted: as it will be trained; its tensors are put back afterwards.
        objective: gives the losses.
        records: made-up, two or more, of different lengths.
        roles: what the plan trains.
        coupling: of records of one client; so many as it says go together at most.
        fixed: tensors of these roles that never move.
        unit: what is hidden.

    Returns:
        The larger coupling of the two.

    Raises:
        GradientCheckError: with the reason.
    """
    kept = adapted.extract()
    adapted.train_only(roles, fixed)
    adapted.model.train()
    batch = to_device(records, adapted.device)
    lineup = Lineup.of(lengths(batch), coupling.together)
    try:
        small = _of_two(adapted, objective, batch, kept, SMALL)
        _check_rows(small, lineup)
        if unit != "example":
            return coupling
        alone = {i: small.alone(i) for i in lineup.everyone}
        moved = isolation.check_apart(small, alone, lineup)
        large = _of_two(adapted, objective, batch, kept, LARGEST)
        return replace(
            coupling,
            moved=max(coupling.moved, moved),
            moved_at_large=max(coupling.moved_at_large, isolation.coupling(large, lineup)),
        )
    finally:
        adapted.load(kept)
        for parameter in adapted.tensors.values():
            parameter.grad = None


def _of_two(
    adapted: AdaptedModel, objective: PerExampleLoss, batch: Batch, kept: Factors, spread: float
) -> Passes:
    """Passes of two clients that differ in what trains; the model holds the rest."""
    adapted.load(drawn(kept, spread))
    own = [
        {
            key: t.to(parameter)
            for key, t in drawn(kept, spread, client).items()
            if (parameter := adapted.tensors[key]).requires_grad
        }
        for client in (1, 2)
    ]
    return Passes(adapted, objective, batch, own)


def _check_rows(passes: Passes, lineup: Lineup) -> None:
    """Rows of a crowd against autograd, record by record."""
    adapted = passes.adapted
    tolerance = COARSE if is_coarse(adapted) else EXACT
    for which in lineup.batches():
        found = passes.together(which)
        expected = torch.stack([_by_itself(passes, i) for i in which])
        gap = float(isolation.relative(found, expected).norm(dim=1).nan_to_num(nan=2.0).max())
        if not gap <= tolerance:
            raise GradientCheckError(
                f"records that meet factors of their own have gradients that are off by {gap:.1%} "
                "from what they are in a model of these factors"
            )


def _by_itself(passes: Passes, record: int) -> Tensor:
    """(P,) of a record in a model that holds its client's factors, by autograd."""
    adapted, own = passes.adapted, passes.own[record % len(passes.own)]
    common = {key: adapted.tensors[key].detach().clone() for key in own}
    try:
        _put(adapted, own)
        return replace(passes, own=()).alone(record)
    finally:
        _put(adapted, common)


@torch.no_grad()
def _put(adapted: AdaptedModel, tensors: Mapping[Key, Tensor]) -> None:
    for key, t in tensors.items():
        adapted.tensors[key].copy_(t)
