"""What is checked of somebody's model and losses, before and as they train.

The model is checked on made-up records, as before every run (``engine.gradient_check``); the
losses, which are computed in the user's own loop, when the first ones come.

Shapes: n records.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from silotune.adapters import AdaptedModel
from silotune.core import Answers, Batch, Key, Role, generator
from silotune.core.masks import MASK
from silotune.core.outer import Rows, dense
from silotune.engine import GradientCheckError, RecordsMixError, is_coarse
from silotune.engine import check_gradients as check_against_autograd
from silotune.engine.batches import filled
from silotune.engine.passes import MOST

from .nested import mapped, moved, named

_RECORDS = 6
"""Synthetic records in a gradient check."""

_ASK = (
    "give synthetic=, a batch as collate_fn makes it of made-up records, and losses=, which takes "
    "the model and that batch and gives one loss a record"
)
"""What a user can do where no synthetic input can be made."""

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
        synthetic = _made_up(form, model.model)
    if micro_batch > 1 and is_coarse(model):
        raise RecordsMixError(_HALF, MOST)
    records = moved(synthetic, model.device)
    objective = _MadeUp(records, losses or _outputs)
    lengths = _lengths(records)
    training = model.model.training
    frozen = [p for p in model.tensors.values() if not p.requires_grad]
    try:
        check_against_autograd(
            model,
            objective,
            {"labels": torch.tensor(lengths).argsort(stable=True)},
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
        raise ValueError(f"synthetic: the model cannot read it ({error}); {_ASK}") from error
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


class _MadeUp:
    """The objective of a gradient check: losses of synthetic records, chosen by their place.

    Args:
        records: a synthetic batch of n records.
        losses: of the model on some of them, (n,).
    """

    metric = "none"

    def __init__(self, records: Any, losses: Callable[[Any, Any], Tensor]) -> None:
        self.records, self.of = records, losses

    def losses(self, model: nn.Module, batch: Batch) -> Tensor:
        """(k,) of the k records whose places are ``batch["labels"]``."""
        places = batch["labels"]
        return self.of(model, _unpadded(mapped(self.records, lambda t: t[places.to(t.device)])))

    def measure(self, model: nn.Module, batch: Batch) -> Answers:
        """Nothing."""
        return Answers()


def _made_up(batch: Any, model: nn.Module) -> Any:
    """A batch of the same form with nothing of the records in it but shapes and types.

    Token ids and real numbers are drawn, masks are ones but for the ends of records, no two of
    which are cut alike, and all other whole numbers are 0.

    Args:
        batch: of some records.
        model: tells how many tokens there are.
    """
    vocabulary = _vocabulary(model)

    def fresh(name: str, t: Tensor) -> Tensor:
        g = generator("made up", name, *t.shape)
        if t.is_floating_point() and not name.endswith("mask"):
            return torch.randn(t.shape, generator=g).to(t)
        if name.endswith("mask"):
            ones = torch.ones_like(t)
            if t.dim() == 2:
                width = t.shape[1]
                for row, cut in zip(ones, (width // 2, 1, width // 3), strict=False):
                    row[width - min(cut, width - 1) :] = 0
            return ones
        if name.endswith("ids") and "type" not in name and "position" not in name and vocabulary:
            return torch.randint(vocabulary, t.shape, generator=g).to(t)
        return torch.zeros_like(t)

    def walk(part: Any, name: str) -> Any:
        if isinstance(part, Tensor):
            return fresh(name, part)
        if isinstance(part, Mapping):
            return {key: walk(inner, str(key)) for key, inner in part.items()}
        if isinstance(part, list | tuple):
            return [walk(inner, name) for inner in part]
        return part

    return walk(batch, "")


def _outputs(model: Any, batch: Any) -> Tensor:
    """(n,) one number of each record: its logits times fixed random ones.

    The inputs are ``batch["inputs"]``, or what of a mapping the model takes, or a sequence's first.

    Raises:
        ValueError: if it cannot be told what the model reads or gives.
    """
    found = _call(model, _inputs(model, batch))
    logits = getattr(found, "logits", found)
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise ValueError(f"losses: the model gives no logits, so it cannot be checked; {_ASK}")
    wide = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if wide.dim() > 2:  # one vector a token: padding says nothing
        mask = next((t for name, t in named(batch) if name == MASK), None)
        if mask is not None and mask.shape == wide.shape[:2]:
            wide = wide * mask.to(wide)[(..., *[None] * (wide.dim() - 2))]
        places = torch.arange(wide.shape[1], device=wide.device)
        wide = torch.einsum("nt...,t->n...", wide, torch.cos(places.to(wide.dtype)))
    flat = wide.flatten(1) if wide.dim() > 1 else wide[:, None]
    weights = torch.randn(flat.shape[1], generator=generator("made up", "losses")).to(flat)
    losses: Tensor = flat @ weights / flat.shape[1] ** 0.5
    return losses


def _lengths(records: Any) -> list[int]:
    """Tokens of each record; 1 where nothing tells."""
    number = _number(records)
    masks = [t for name, t in named(records) if name == MASK and t.dim() == 2]
    return [int(n) for n in masks[0].bool().sum(dim=1)] if masks else [1] * number


def _unpadded(records: Any) -> Any:
    """Without the columns that are padding in all of them."""
    masks = [t for name, t in named(records) if name == MASK and t.dim() == 2]
    kept = filled(masks[0]) if masks else None
    if kept is None:
        return records
    width = masks[0].shape[1]
    return mapped(records, lambda t: t[:, kept] if t.dim() > 1 and t.shape[1] == width else t)


def _number(records: Any) -> int:
    """How many records a nest of tensors has."""
    counts = {t.shape[0] if t.dim() else 0 for _, t in named(records)}
    if len(counts) != 1 or min(counts) < 2:
        raise ValueError(
            "collate_fn: every tensor's first dimension must count records, and a synthetic batch "
            f"needs two or more; found {sorted(counts) or 'no tensor'}"
        )
    return counts.pop()


def _vocabulary(model: nn.Module) -> int | None:
    embeddings = getattr(model, "get_input_embeddings", lambda: None)()
    return getattr(embeddings, "num_embeddings", None)


def _inputs(model: nn.Module, batch: Any) -> Any:
    if isinstance(batch, Mapping):
        if "inputs" in batch:
            return batch["inputs"]
        base = getattr(model, "get_base_model", lambda: model)()
        takes = inspect.signature(base.forward).parameters
        return {k: v for k, v in batch.items() if k in takes and k not in ("labels", "label")}
    if isinstance(batch, list | tuple) and batch:
        return batch[0]
    return batch


def _call(model: nn.Module, inputs: Any) -> Any:
    if isinstance(inputs, Mapping):
        return model(**inputs)
    whole: Any = model
    return whole(*inputs) if isinstance(inputs, list | tuple) else whole(inputs)
