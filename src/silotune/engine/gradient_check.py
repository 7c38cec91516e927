"""The coverage guard: before any record is read, prove that no gradient escapes the mechanism.

A synthetic batch with non-zero factors must leave in the sink, slot by slot, the gradient that
ordinary autograd gives for each example *alone*. So a tensor that trains outside the sink, a layer
that is seen twice, a module that mixes examples (BatchNorm, balancing losses) or a forward pass
that is not deterministic is found here, by what it does and not by its name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from silotune.adapters import AdaptedModel
from silotune.core import Batch, Factors, Key, Role, generator
from silotune.objectives import PerExampleLoss

from .batches import to_device


class GradientCheckError(ValueError):
    """Per-example gradients are not what they must be; training would break the guarantee."""


def check_gradients(
    adapted: AdaptedModel,
    objective: PerExampleLoss,
    batch: Batch,
    roles: Collection[Role],
    tolerance: float = 2e-3,
) -> None:
    """Compare the sink with autograd on ``batch`` for every tensor that requires a gradient.

    Args:
        adapted: the model as it will be trained; its tensors are put back afterwards.
        objective: gives the losses.
        batch: synthetic; at least two examples of different lengths.
        roles: what the plan trains.
        tolerance: largest error, relative to the largest entry of the slot (half precision of the
            base needs a larger one).

    Raises:
        GradientCheckError: naming the tensors and the reason.
    """
    kept = adapted.extract()
    adapted.load(_nonzero(kept))
    adapted.train_only(roles)
    adapted.model.train()
    try:
        _check(adapted, objective, to_device(batch, adapted.device), tolerance)
    finally:
        adapted.load(kept)
        for parameter in adapted.tensors.values():
            parameter.grad = None


def _check(
    adapted: AdaptedModel, objective: PerExampleLoss, batch: Batch, tolerance: float
) -> None:
    trained = {k: p for k, p in adapted.tensors.items() if p.requires_grad}
    _refuse_strangers(adapted)
    examples = len(batch["labels"])
    try:
        with adapted.sink.collect(examples) as rows:
            losses = adapted.losses(objective.losses, batch)
            if losses.shape != (examples,):
                raise ValueError(
                    f"objective: losses must be of shape ({examples},) for {examples} records, one "
                    f"for each, not {tuple(losses.shape)}"
                )
            losses.sum().backward()
            slots = dict(rows)
    except ValueError as error:
        raise GradientCheckError(str(error)) from error
    if missing := trained.keys() - slots.keys():
        raise GradientCheckError(
            f"{_names(missing)}: trained, but no per-example gradient arrives; the model does not "
            "use it, or uses its weight without calling the layer"
        )
    for i in range(examples):
        for parameter in trained.values():
            parameter.grad = None
        alone = {name: t[i : i + 1] for name, t in batch.items()}
        loss = adapted.losses(objective.losses, alone)
        _same_loss(losses[i], loss[0], tolerance)
        loss.sum().backward()
        for key, parameter in trained.items():
            _same_gradient(key, slots[key][i], parameter.grad, tolerance)


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


def _same_loss(together: Tensor, alone: Tensor, tolerance: float) -> None:
    if not torch.allclose(together, alone, rtol=tolerance, atol=tolerance):
        raise GradientCheckError(
            f"an example's loss is {together.item():.6g} in a batch and {alone.item():.6g} alone: "
            "the model mixes the examples of a batch (BatchNorm, or a loss over the batch), or its "
            "forward pass is random"
        )


def _same_gradient(key: Key, row: Tensor, reference: Tensor | None, tolerance: float) -> None:
    if reference is None:
        reference = torch.zeros_like(row)
    size = max(float(reference.abs().max()), float(row.abs().max()), 1e-12)
    gap = float((row - reference).abs().max()) / size
    if not gap <= tolerance:
        raise GradientCheckError(
            f"{key}: the per-example gradient is off by {gap:.1%} from what autograd gives for the "
            "example alone"
        )


def _nonzero(factors: Factors) -> Factors:
    """Small random factors, so that no gradient vanishes because B is zero."""
    return Factors({k: t + _noise(k, t) for k, t in factors.items()})


def _noise(key: Key, t: Tensor) -> Tensor:
    return 0.02 * torch.randn(t.shape, generator=generator("coverage", key))


def _names(keys: Collection[Key] | Mapping[Key, object]) -> str:
    return ", ".join(map(str, sorted(keys)[:3]))
