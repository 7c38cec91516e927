"""Our own layers put on a model object: pairs where PEFT would put them, and per-example heads.

What is written loads in PEFT. For a model that has PEFT's pairs already: ``adopt``.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from silotune import adapters
from silotune.adapters import AdaptedModel, Init, PeftLayout, initial_factors, inject, save_peft
from silotune.core import Factors, Key, Role, Site
from silotune.models import prepare, quantised
from silotune.models.saved_modules import beside_heads, saved_modules
from silotune.models.target_modules import find_sites, peft_targets

TRAINABLE = (Role.A, Role.B, Role.HEAD)
"""What a loop may train."""


@dataclass(frozen=True, kw_only=True)
class LoRA:
    """Which layers get a pair, and how it begins; fields are named as in PEFT's ``LoraConfig``.

    Attributes:
        r: the rank.
        lora_alpha: numerator of the scale.
        target_modules: suffixes of names, ``all-linear``, or a regular expression for whole names;
            None for the architecture's usual ones.
        layers_to_transform: numbers of the layers; None for all.
        use_rslora: divide by sqrt(r) rather than r.
        init: how the pair begins.

    Raises:
        ValueError: naming the field, if it is out of range or of another type.
    """

    r: int = 8
    lora_alpha: float = 8.0
    target_modules: str | Sequence[str] | None = None
    layers_to_transform: Sequence[int] | None = None
    use_rslora: bool = False
    init: Init = Init.KAIMING

    def __post_init__(self) -> None:
        if type(self.r) is not int or self.r < 1:
            raise ValueError(f"r: the rank must be a whole number, at least 1, not {self.r!r}")
        alpha = self.lora_alpha
        if type(alpha) not in (int, float) or not 0 < alpha < inf:
            raise ValueError(f"lora_alpha: must be a positive number, not {alpha!r}")
        if self.target_modules is not None and not isinstance(self.target_modules, str | Sequence):
            raise ValueError(
                f"target_modules: must be names or one expression, not {self.target_modules!r}"
            )
        if self.init not in list(Init):
            raise ValueError(f"init: must be one of {', '.join(Init)}, not {self.init!r}")

    @property
    def adapter(self) -> adapters.LoRA:
        """The parametrisation alone."""
        return adapters.LoRA(
            rank=self.r, alpha=self.lora_alpha, rslora=self.use_rslora, init=Init(self.init)
        )


def adapt(
    model: Any,
    lora: LoRA,
    *,
    train: Collection[str] = ("B", "head"),
    heads: Sequence[str] | None = None,
    seed: int = 0,
) -> AdaptedModel:
    """Freeze a transformers model and put trainable pairs and heads into it, in place.

    Its dropout is switched off: a mask goes by a record's place in the batch, so that one record
    would move another's gradient. Heads begin as the model has them. Layers of bitsandbytes become
    our own with the same numbers: the 8-bit one rounds a record by what others of the batch are.

    Args:
        model: a ``PreTrainedModel``, on its device.
        lora: where the pairs are.
        train: of ``A``, ``B`` and ``head``. B and the head alone is FFA-LoRA, which private
            training likes best; A stays what the seed draws.
        heads: names of linear maps to train whole; None for the classifier outside the base model.
        seed: draws A.

    Raises:
        ValueError: naming the argument, if it does not fit the model.
    """
    roles = _roles(train)
    if not (isinstance(model, nn.Module) and hasattr(model, "config")):
        raise ValueError(f"model: must be a transformers model, not a {type(model).__name__}")
    if not isinstance(lora, LoRA):
        raise ValueError(f"lora: must be a LoRA, not a {type(lora).__name__}")
    if any(p.is_meta for p in model.parameters()):
        raise ValueError("model: its weights are on the meta device; load them first")
    quantised.packed(model)
    head_sites = _heads(model, heads) if Role.HEAD in roles else ()
    names = [site.name for site in head_sites]
    sites = find_sites(model, lora.target_modules, lora.layers_to_transform, names)
    layout = _layout(model, sites, names)
    first = initial_factors(sites, lora.adapter, seed).updated(_first(head_sites))
    prepare.dropout(model)
    plain = inject(model, sites, head_sites, lora.adapter)
    plain.load(first)

    def save(folder: Path) -> None:
        save_peft(folder, plain.extract(), lora.adapter, sites, layout)

    adapted = AdaptedModel(
        plain.model, plain.sink, plain.context, plain.layers, plain.tensors, save
    )
    adapted.train_only(roles)
    return adapted


def _roles(train: Collection[str]) -> frozenset[Role]:
    allowed = [role.value for role in TRAINABLE]
    if isinstance(train, str) or not train or set(train) - set(allowed):
        raise ValueError(f"train: must name some of {', '.join(allowed)}, not {train!r}")
    return frozenset(map(Role, train))


def _heads(model: Any, names: Sequence[str] | None) -> tuple[Site, ...]:
    """The linear maps to train whole; a language model has none of its own accord."""
    if names is None:
        writes = model.get_output_embeddings() is not None
        return () if writes else prepare.heads(model, ())
    modules = dict(model.named_modules())
    found = []
    for name in names:
        module = modules.get(name)
        if not isinstance(module, nn.Linear):
            kind = "absent" if module is None else f"a {type(module).__name__}"
            raise ValueError(f"heads: {name} is {kind}, not a linear layer of this model")
        found.append(Site(name, module, module.in_features, module.out_features))
    return tuple(found)


def _first(heads: Sequence[Site]) -> Factors:
    """The heads as the model has them, in float32 at least."""
    found: dict[Key, Tensor] = {}
    for site in heads:
        for name, parameter in site.module.named_parameters():
            found[Key(site.name, Role.HEAD, name)] = parameter.detach().to("cpu", copy=True)
    return Factors(found)


def _layout(model: Any, sites: Sequence[Site], heads: Sequence[str]) -> PeftLayout:
    """What PEFT needs to know to load what was trained."""
    kind = type(model).__name__
    task = "SEQ_CLS" if kind.endswith("ForSequenceClassification") else None
    task = "CAUSAL_LM" if kind.endswith("ForCausalLM") or kind.endswith("LMHeadModel") else task
    whole = saved_modules(model, heads)
    return PeftLayout(
        base_model=str(getattr(model, "name_or_path", "")),
        task_type=task,
        target_modules=peft_targets(sites, model, heads),
        modules_to_save=whole,
        head_scale=1.0,
        beside=beside_heads(model, whole, heads),
    )
