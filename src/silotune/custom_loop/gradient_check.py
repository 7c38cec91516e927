"""What is checked of somebody's model and losses, before and as they train.

The model is checked on made-up records, as before every run (``engine.gradient_check``); the
losses, which are computed in the user's own loop, when the first ones come.

Shapes: n records.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from silotune.adapters import AdaptedModel
from silotune.core import Key, Role
from silotune.core.outer import Rows, dense
from silotune.engine import GradientCheckError, RecordsMixError, is_coarse
from silotune.engine import check_gradients as check_against_autograd
from silotune.engine.passes import MOST

from .made_up import ASK, MadeUp, lengths, made_up, outputs
from .nested import mapped, moved

_RECORDS = 6
"""Synthetic records in a gradient check."""

_HALF = (
    "model: in half precision a record's gradient moves with the records computed beside it, which "
    "clipping does not bound and made-up records need not show; set micro_batch_size to 1, which "
    "takes more time and mixes nothing, or take float32"
)


def check_gradients(
    model: AdaptedModel,
    roles: Collection[Role],
    dataset: Any,
    collate_fn: Callable[[list[Any]], Any],
    losses: Callable[[Any, Any], Tensor] | None,
    synthetic: Any,
    micro_batch: int,
) -> None:
    """The gradient check on made-up records, with the model left as it was.

    As before a run: alone and unpadded, as far as an ``attention_mask`` tells padding; beside the
    longest; in every place; after all others; and without hard choices.

    Args:
        model: with everything that will be trained requiring a gradient.
        roles: of what is trained.
        dataset: lends the form of its first record if there is no synthetic batch.
        collate_fn: makes a batch of a list of records.
        losses: of the model on a batch, (n,); None = random ones of its logits.
        synthetic: a batch of made-up records; None = one of that form.
        micro_batch: records that go through the model at once.

    Raises:
        GradientCheckError: if the gradient of a record is not what it must be; with the cure if
            records change each other.
        ValueError: if the model cannot be run on made-up records.
    """
    if synthetic is None:
        form = collate_fn([dataset[0]] * _RECORDS)
        synthetic = made_up(form, model.model)
    if micro_batch > 1 and is_coarse(model):
        raise RecordsMixError(_HALF, MOST)
    records = moved(synthetic, model.device)
    objective = MadeUp(records, losses or outputs)
    training = model.model.training
    frozen = [p for p in model.tensors.values() if not p.requires_grad]
    try:
        check_against_autograd(
            model,
            objective,
            {"labels": torch.tensor(lengths(records)).argsort(stable=True)},
            roles,
            fixed=[key for key, p in model.tensors.items() if not p.requires_grad],
            micro_batch=micro_batch,
        )
    except RecordsMixError as error:
        raise RecordsMixError(
            f"model: {error}; set micro_batch_size to 1, which takes more time and mixes nothing, "
            "or take another model, shorter records or float32",
            error.moved,
        ) from error
    except GradientCheckError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(f"synthetic: the model cannot read it ({error}); {ASK}") from error
    finally:
        model.model.train(training)
        for parameter in frozen:
            parameter.requires_grad_(False)


def check_independent(losses: Tensor, rows: dict[Key, Rows]) -> None:
    """See that losses of every other record leave no gradient with those in between.

    Args:
        losses: (n,), n at least 2, with their graph, which is kept.
        rows: where the backward pass leaves gradients by record; empty before and after.

    Raises:
        ValueError: if they do: there is no loss of a single record to clip by.
    """
    for first in (0, 1):
        torch.autograd.backward(losses[first::2].sum(), retain_graph=True)
        for key, kept in rows.items():
            own = dense(kept)
            others, most = own[1 - first :: 2], own.abs().nan_to_num(posinf=0.0).max()
            if (others.abs().nan_to_num(posinf=0.0) > 1e-6 * most).any():
                raise ValueError(
                    f"losses: a record's loss depends on others of its part (seen at {key}); "
                    "compute each from its own record alone, with no mean over the batch"
                )
        rows.clear()


def check_alone(
    losses: Tensor, alone: Callable[[Any, Any], Tensor], model: AdaptedModel, part: Any
) -> None:
    """See that every loss is about what its record has alone, in a part of its own.

    Gross differences are found, as of a mean over the part; autocast and padding change less.

    Args:
        losses: (n,) as they came.
        alone: the user's ``losses=``.
        model: what it takes first.
        part: that the losses are of.

    Raises:
        ValueError: if one is not.
    """
    found = losses.detach()
    own = found.clone()
    with torch.no_grad():
        for i in range(len(found)):
            record = mapped(part, partial(torch.narrow, dim=0, start=i, length=1))
            own[i] = alone(model.model, record).squeeze()
    gap = (found - own).abs()
    if (gap > 0.1 * own.abs().clamp(min=0.01 * float(own.abs().max()))).any():
        raise ValueError(
            "losses: a record's is another in its part than by losses= alone; compute each from "
            "its own record, not divided by their number nor chosen or weighed by others"
        )


def check_nothing_else_trained(model: AdaptedModel, tensors: Mapping[Key, nn.Parameter]) -> None:
    """See that nothing of the model requires a gradient but what is clipped and noised.

    Raises:
        ValueError: naming the parameter that does.
    """
    ours = {id(p) for p in tensors.values()}
    for name, parameter in model.model.named_parameters():
        if parameter.requires_grad and id(parameter) not in ours:
            raise ValueError(
                f"model: {name} was unfrozen after make_private, and its gradient is neither "
                "clipped nor noised; freeze it, or unfreeze it before make_private"
            )


def check_reaches(losses: Tensor, tensors: Mapping[Key, nn.Parameter]) -> None:
    """See that a backward pass gives a gradient to what is clipped and noised, and to nothing else.

    Args:
        losses: with their graph.
        tensors: all that is trained here.

    Raises:
        ValueError: if it reaches a parameter of another module, whose gradient would be a record's
            own.
    """
    ours = {id(p) for p in tensors.values()}
    seen, open_ = set[Any](), [losses.grad_fn]
    while open_:
        node = open_.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if isinstance(leaf, nn.Parameter) and id(leaf) not in ours:
            raise ValueError(
                f"losses: reach a parameter of shape {tuple(leaf.shape)} that is not trained here, "
                "and its gradient would be neither clipped nor noised; freeze it, or make it a "
                "head of the model before make_private"
            )
        open_.extend(next_node for next_node, _ in node.next_functions)
