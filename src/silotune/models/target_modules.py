"""Which linear maps of a model are adapted, chosen as PEFT chooses them.

Names are dotted paths from ``model.named_modules()``; a suffix is a name's last parts.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import nn

from silotune.core import Site

from .load import Conv1D

ALL_LINEAR = "all-linear"
_QV = ("q_proj", "v_proj")
_QUERY_VALUE = ("query", "value")

DEFAULT_TARGETS: Mapping[str, tuple[str, ...]] = {
    "albert": _QUERY_VALUE,
    "bert": _QUERY_VALUE,
    "bloom": ("query_key_value",),
    "deberta": ("in_proj",),
    "deberta-v2": ("query_proj", "value_proj"),
    "deit": (*_QV, *_QUERY_VALUE),
    "dinov2": (*_QV, *_QUERY_VALUE),
    "distilbert": ("q_lin", "v_lin"),
    "electra": _QUERY_VALUE,
    "falcon": ("query_key_value",),
    "gemma": _QV,
    "gemma2": _QV,
    "gemma3_text": _QV,
    "gpt2": ("c_attn",),
    "gpt_neo": _QV,
    "gpt_neox": ("query_key_value",),
    "gptj": _QV,
    "llama": _QV,
    "mistral": _QV,
    "modernbert": ("Wqkv",),
    "mpnet": ("q", "v"),
    "opt": _QV,
    "phi": (*_QV, "fc1", "fc2"),
    "phi3": ("qkv_proj",),
    "qwen2": _QV,
    "qwen3": _QV,
    "roberta": _QUERY_VALUE,
    "stablelm": _QV,
    "swin": (*_QV, *_QUERY_VALUE),
    "vit": (*_QV, *_QUERY_VALUE),  # named by either, depending on the version of transformers
    "xlm-roberta": _QUERY_VALUE,
}
"""``config.model_type`` to suffixes: attention queries and values, as in PEFT."""


def find_sites(
    model: Any,
    target_modules: str | Sequence[str] | None,
    layers_to_transform: Sequence[int] | None = None,
    exclude: Collection[str] = (),
) -> tuple[Site, ...]:
    """The sites that a configuration asks for, in the model's own order.

    Args:
        model: what ``load_model`` gives.
        target_modules: None for the architecture's default; ``all-linear`` for every linear map
            but heads and the output embedding; one string for a regular expression that matches
            whole names; a list for suffixes.
        layers_to_transform: keep these layers only: the first number in a name.
        exclude: names of heads.

    Raises:
        ValueError: if nothing matches, a suffix matches nothing, or a match is not linear.
    """
    modules = {n: m for n, m in model.named_modules() if n and not _inside(n, exclude)}
    matched = _match(model, modules, target_modules)
    if not matched:
        raise ValueError(_nothing(str(target_modules or "the default"), modules))
    kept = [name for name in matched if _in_layers(name, layers_to_transform)]
    if not kept:
        raise ValueError(
            f"layers_to_transform: no target module is in the layers {layers_to_transform}; "
            f"there are {_layers(matched)}"
        )
    return tuple(_site(name, modules[name]) for name in kept)


def peft_targets(sites: Sequence[Site], model: nn.Module, exclude: Collection[str]) -> list[str]:
    """What to write as PEFT's ``target_modules``, so that exactly these sites match there.

    Their last names (``query``, ``value``) if no other module ends so, else their full names.

    Args:
        sites: of this model.
        model: as it was when the sites were found.
        exclude: names of heads, which PEFT keeps under ``modules_to_save``.
    """
    names = [site.name for site in sites]
    short = sorted({_last(name) for name in names})
    everywhere = [n for n, _ in model.named_modules() if n and not _inside(n, exclude)]
    same = {n for n in everywhere if any(_ends(n, s) for s in short)} == set(names)
    return short if same else names


def _match(
    model: Any, modules: Mapping[str, nn.Module], target_modules: str | Sequence[str] | None
) -> list[str]:
    if target_modules is None:
        suffixes = _default(model.config.model_type, modules)
        return [n for n in modules if any(_ends(n, s) for s in suffixes)]
    if isinstance(target_modules, str):
        return _match_text(model, modules, target_modules)
    if not target_modules:
        raise ValueError(f"target_modules: the list is empty; {_present(modules)}")
    for suffix in target_modules:
        if not any(_ends(n, suffix) for n in modules):
            raise ValueError(_nothing(suffix, modules))
    return [n for n in modules if any(_ends(n, s) for s in target_modules)]


def _match_text(model: Any, modules: Mapping[str, nn.Module], text: str) -> list[str]:
    if text.lower() == ALL_LINEAR:
        output = model.get_output_embeddings()
        return [n for n, m in modules.items() if _is_linear(m) and m is not output]
    try:
        return [n for n in modules if re.fullmatch(text, n)]
    except re.error as error:
        raise ValueError(
            f"target_modules: {text!r} is not a regular expression ({error})"
        ) from None


def _default(model_type: str, modules: Mapping[str, nn.Module]) -> tuple[str, ...]:
    if model_type not in DEFAULT_TARGETS:
        raise ValueError(
            f"target_modules: there is no default for {model_type!r} models; {_present(modules)}"
        )
    return DEFAULT_TARGETS[model_type]


def _site(name: str, module: nn.Module) -> Site:
    if isinstance(module, nn.Linear):
        return Site(name, module, module.in_features, module.out_features)
    if isinstance(module, Conv1D):
        rows, columns = module.weight.shape
        return Site(name, module, rows, columns, transposed=True)
    raise ValueError(f"target_modules: {name} is a {type(module).__name__}, not a linear layer")


def _is_linear(module: nn.Module) -> bool:
    return isinstance(module, (nn.Linear, Conv1D))


def _nothing(asked: str, modules: Mapping[str, nn.Module]) -> str:
    if asked in _linear_names(modules):
        return (
            f"target_modules: one string is a regular expression for whole names; write "
            f"[{asked}] for all modules whose names end so"
        )
    close = difflib.get_close_matches(asked, _linear_names(modules), n=3)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return f"target_modules: {asked!r} matches no module; {hint}{_present(modules)}"


def _present(modules: Mapping[str, nn.Module]) -> str:
    return f"linear modules end in: {', '.join(_linear_names(modules))}"


def _linear_names(modules: Mapping[str, nn.Module]) -> list[str]:
    return sorted({_last(n) for n, m in modules.items() if _is_linear(m)})


def _layers(names: Sequence[str]) -> str:
    return ", ".join(map(str, sorted({i for n in names if (i := _layer(n)) is not None}))) or "none"


def _layer(name: str) -> int | None:
    return next((int(part) for part in name.split(".") if part.isdigit()), None)


def _in_layers(name: str, layers: Sequence[int] | None) -> bool:
    return not layers or _layer(name) in layers


def _inside(name: str, parents: Collection[str]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def _ends(name: str, suffix: str) -> bool:
    return name == suffix or name.endswith(f".{suffix}")


def _last(name: str) -> str:
    return name.rpartition(".")[2]
