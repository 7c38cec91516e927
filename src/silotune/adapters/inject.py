"""Putting adapters into a model: the one place where modules are replaced."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from silotune.core import Answers, Batch, Context, Factors, Key, PerExampleGradients, Role, Site
from silotune.core.expert_matrix import ExpertMatrix
from silotune.core.masks import DECODER, MASK
from silotune.core.packed_linear import PackedLinear
from silotune.linalg import Matrix

from .base import Adapter, Layer
from .expert_stack import AdaptedExperts, places
from .linear import AdaptedLinear, Head
from .prefix import PREFIX, Prefix

_NOTHING: Mapping[str, Matrix] = {}


@dataclass(frozen=True, eq=False)
class AdaptedModel:
    """A frozen base model with adapted sites and heads, used by all clients of a process in turn.

    Attributes:
        model: the transformers model, changed in place.
        sink: where open forward and backward passes leave per-example gradients.
        context: where the layers of one forward pass meet.
        layers: the adapted layers by site.
        tensors: every adapter and head tensor by key.
        save: writes the adapter into a folder; None where somebody else does.
        prefix: layers below the lowest adapted one, whose output a batch may bring along; None
            where there are none, or nobody looked.
    """

    model: nn.Module
    sink: PerExampleGradients
    context: Context
    layers: Mapping[str, Layer]
    tensors: Mapping[Key, nn.Parameter]
    save: Callable[[Path], None] | None = None
    prefix: Prefix | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The model's own forward pass."""
        return self.model(*args, **kwargs)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """All that requires a gradient, in the order of its keys: what an optimiser takes."""
        return [p for p in self.tensors.values() if p.requires_grad]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write the adapter as a folder that PEFT loads.

        Raises:
            ValueError: if this model does not know how.
        """
        if self.save is None:
            raise ValueError("save_pretrained: this model came from neither adapt nor adopt")
        self.save(Path(folder))

    @property
    def device(self) -> torch.device:
        """Where the model computes."""
        return next(self.model.parameters()).device

    def losses(self, losses: Callable[[nn.Module, Batch], Tensor], batch: Batch) -> Tensor:
        """An objective's losses (n,), with what the layers add to them."""
        with self._read(batch) as read:
            return losses(self.model, read) + self.context.penalty()

    def measure(self, measure: Callable[[nn.Module, Batch], Answers], batch: Batch) -> Answers:
        """An objective's metrics of a batch; the layers add nothing."""
        with self._read(batch) as read:
            return measure(self.model, read)

    @contextmanager
    def _read(self, batch: Batch) -> Iterator[Batch]:
        """What the model reads of a batch; what its frozen prefix gives may be there already."""
        self.context.expect(batch)
        try:
            brought = [tensor for name, tensor in batch.items() if name.endswith(PREFIX)]
            if not brought:
                yield batch
                return
            assert self.prefix is not None, "states of a prefix that the model does not have"
            with self.prefix.fed(*brought):
                yield {name: t for name, t in batch.items() if not name.endswith(PREFIX)}
        finally:
            self.context.over()

    def load(
        self, factors: Factors, folded: Mapping[str, Matrix] = _NOTHING, gain: float = 1.0
    ) -> None:
        """Replace every tensor and every fold, so that nothing of an earlier client is left.

        Args:
            factors: of all tensors; pairs may have a rank of their own.
            folded: what has been added to the base, by site.
            gain: what plain pairs are multiplied by besides the adapter's scale.

        Raises:
            ValueError: if a tensor or site is missing, unknown or of another shape.
        """
        _check_fit(factors, folded, self)
        with torch.no_grad():
            for key, parameter in self.tensors.items():
                parameter.data = factors[key].to(parameter, copy=True)
        for site, layer in self.layers.items():
            layer.fold(folded.get(site))
            if isinstance(layer, AdaptedLinear):
                layer.gain = gain

    def extract(self) -> Factors:
        """A copy of every tensor, on the CPU."""
        return Factors({k: p.detach().to("cpu", copy=True) for k, p in self.tensors.items()})

    def bases(self) -> dict[nn.Parameter, Callable[[], Tensor]]:
        """What gives the frozen weight (out, in) that a whole matrix stands beside, by matrix."""
        return {
            p: partial(_base, self.layers[key.site])
            for key, p in self.tensors.items()
            if key.role is Role.D
        }

    def train_only(
        self, roles: Collection[Role], fixed: Collection[Key] = ()
    ) -> dict[Key, nn.Parameter]:
        """Let gradients flow to these roles and no others; returns what is trained.

        Args:
            roles: of the tensors that move.
            fixed: tensors that do not, all the same.
        """
        for key, parameter in self.tensors.items():
            parameter.requires_grad_(key.role in roles and key not in fixed)
        return {k: p for k, p in self.tensors.items() if p.requires_grad}


def inject(
    model: nn.Module,
    sites: Sequence[Site],
    heads: Sequence[Site],
    adapter: Adapter | None,
    head_scale: float = 1.0,
) -> AdaptedModel:
    """Freeze ``model`` and replace its sites and heads by adapted layers.

    Args:
        model: changed in place; every parameter is frozen.
        sites: places to adapt; empty without an adapter.
        heads: linear heads, which are always ours so that they begin from the seed everywhere.
        adapter: the parametrisation, or None to train heads only.
        head_scale: see ``Head``.
    """
    model.requires_grad_(False)
    sink = PerExampleGradients()
    own_heads = {s.name: Head(s, head_scale, sink) for s in heads}
    context = Context()
    layers = dict(adapter.layers(sites, sink, context)) if adapter else {}
    for name, place in (own_heads | places(layers)).items():
        _replace(model, name, place)
    trained: list[Layer | Head] = [*own_heads.values(), *layers.values()]
    tensors = {k: p for part in trained for k, p in part.tensors().items()}
    model.register_forward_pre_hook(_begin(context), with_kwargs=True, prepend=True)
    model.register_forward_hook(_end(context))
    prefix = Prefix.below(model, {*layers, *(key.site for key in tensors)})
    tensors = dict(sorted(tensors.items()))
    return AdaptedModel(model, sink, context, layers, tensors, prefix=prefix)


def merge(adapted: AdaptedModel, heads: Sequence[Site]) -> nn.Module:
    """Put the plain modules back, with weights that compute the same.

    They are W + scale (F + B A) for an adapted site and scale H for a head; a quantised W becomes
    plain everywhere, so that nothing learned is rounded to its few bits.

    The adapted model is used up. Weights keep the base's own number type.

    Args:
        adapted: loaded with the factors to merge.
        heads: as they were given to ``inject``.

    Raises:
        ValueError: if an adapted weight is also used elsewhere in the model (tied), where it must
            not change.
    """
    model = adapted.model
    for name, layer in adapted.layers.items():
        expert = layer.base if isinstance(layer.base, ExpertMatrix) else None
        _refuse_tied(model, name, expert.stack if expert else layer.weight)
        plain = _merged_layer(layer)
        if expert is None:
            _replace(model, name, plain)
    for site in heads:
        head = model.get_submodule(site.name)
        assert isinstance(head, Head)
        _merge_head(head, site.module)
        _replace(model, site.name, site.module)
    for name, module in list(model.named_modules()):
        if isinstance(module, PackedLinear):
            _replace(model, name, module.dense())
        if isinstance(module, AdaptedExperts):
            _replace(model, name, module.base)
    return model


def initial_factors(sites: Sequence[Site], adapter: Adapter | None, seed: int) -> Factors:
    """All adapter tensors as they begin. Call it before ``inject`` or with the same sites."""
    own = {
        Key(site.name, role): tensor
        for site in sites
        if adapter is not None
        for role, tensor in adapter.initial_factors(site, seed).items()
    }
    gates = adapter.gates(sites, seed) if adapter else {}
    return Factors({**own, **gates})


def fixed_keys(sites: Sequence[Site], adapter: Adapter | None) -> frozenset[Key]:
    """Tensors that this adapter never trains, whatever the plan says."""
    return frozenset(
        Key(site.name, role) for site in sites if adapter for role in adapter.frozen(site)
    )


def _check_fit(factors: Factors, folded: Mapping[str, Matrix], adapted: AdaptedModel) -> None:
    differ = factors.keys() ^ adapted.tensors.keys()
    if differ:
        raise ValueError(f"factors do not fit the model: {', '.join(map(str, sorted(differ)))}")
    if strange := folded.keys() - adapted.layers.keys():
        raise ValueError(f"a fold does not fit the model: {min(strange)}")
    for key, parameter in adapted.tensors.items():
        new, old = tuple(factors[key].shape), tuple(parameter.shape)
        if _but_rank(key, new) != _but_rank(key, old) or len(new) != len(old):
            raise ValueError(f"{key}: shape {new} does not fit the model's {old}")
    for site in factors.pair_sites():
        pair = factors.pair(site)
        if pair.left.shape[1] != pair.right.shape[0]:
            raise ValueError(f"{site}: A and B are of unequal ranks")


def _base(layer: Layer) -> Tensor:
    return layer.weight.T if layer.transposed else layer.weight


def _but_rank(key: Key, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without the rank, which may change."""
    return {Role.A: shape[1:], Role.B: shape[:1]}.get(key.role, shape)


def _begin(context: Context) -> Callable[..., None]:
    """A hook that runs before every forward pass of the whole model."""

    def begin(_: nn.Module, args: tuple[object, ...], inputs: Mapping[str, object]) -> None:
        context.begin(
            inputs.get(MASK),
            inputs.get("past_key_values"),
            divided=inputs.get(f"{DECODER}input_ids") is not None,
        )

    return begin


def _end(context: Context) -> Callable[..., None]:
    """A hook that runs after every forward pass of the whole model."""

    def end(model: nn.Module, _: tuple[object, ...], output: object) -> None:
        if not model.training:
            context.end(getattr(output, "past_key_values", None))

    return end


def _replace(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)


@torch.no_grad()
def _merged_layer(layer: Layer) -> nn.Module:
    """Rounded to the base's number type once, at the very end."""
    base, weight, delta = layer.base, layer.weight, layer.delta()
    if isinstance(base, PackedLinear):
        return base.dense(delta)
    weight.copy_(weight.to(delta) + (delta.T if layer.transposed else delta))
    return base


@torch.no_grad()
def _merge_head(head: Head, plain: nn.Module) -> None:
    plain.get_parameter("weight").copy_(head.weight * head.scale)
    if head.bias is not None:
        plain.get_parameter("bias").copy_(head.bias * head.scale)


def _refuse_tied(model: nn.Module, name: str, weight: Tensor) -> None:
    uses = [n for n, p in model.named_parameters(remove_duplicate=False) if p is weight]
    if len(uses) > 1:
        raise ValueError(
            f"{name}: its weight is tied to {' and '.join(uses)}, so nothing can be merged into it;"
            " export it as peft"
        )
