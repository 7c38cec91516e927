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

DEFAULT_TARGETS: Mapping[str, str | tuple[str, ...]] = {
    "albert": _QUERY_VALUE,
    "apertus": _QV,
    "arcee": _QV,
    "bamba": _QV,
    "bart": _QV,
    "beit": (*_QV, *_QUERY_VALUE),
    "bert": _QUERY_VALUE,
    "big_bird": _QUERY_VALUE,
    "biogpt": _QV,
    "blip-2": ("q", "v", *_QV),
    "bloom": ("query_key_value",),
    "btlm": ("c_proj", "c_attn"),
    "camembert": _QUERY_VALUE,
    "chatglm": ("query_key_value",),
    "clip": _QV,
    "codegen": ("qkv_proj",),
    "cohere": _QV,
    "cohere2": _QV,
    "convbert": _QUERY_VALUE,
    "convnext": ("pwconv1", "pwconv2"),
    "convnextv2": ("pwconv1", "pwconv2"),
    "data2vec-text": _QUERY_VALUE,
    "data2vec-vision": (*_QV, *_QUERY_VALUE),
    "deberta": ("in_proj",),
    "deberta-v2": ("query_proj", "value_proj"),
    "deit": (*_QV, *_QUERY_VALUE),
    "diffllama": _QV,
    "dinat": (*_QV, *_QUERY_VALUE),
    "dinov2": (*_QV, *_QUERY_VALUE),
    "dinov2_with_registers": (*_QV, *_QUERY_VALUE),
    "distilbert": ("q_lin", "v_lin"),
    "donut-swin": (*_QV, *_QUERY_VALUE),
    "electra": _QUERY_VALUE,
    "ernie": _QUERY_VALUE,
    "ernie4_5": _QV,
    "esm": _QUERY_VALUE,
    "exaone4": _QV,
    "falcon": ("query_key_value",),
    "falcon_h1": _QV,
    "falcon_mamba": ("in_proj", "x_proj"),
    "flaubert": ("q_lin", "v_lin"),
    "gemma": _QV,
    "gemma2": _QV,
    "gemma3_text": _QV,
    "gemma4": r".*language_model\..*\.(q_proj|v_proj)",
    "gemma4_text": _QV,
    "glm": _QV,
    "glm4": _QV,
    "gpt-sw3": ("c_attn",),
    "gpt2": ("c_attn",),
    "gpt_bigcode": ("c_attn",),
    "gpt_neo": _QV,
    "gpt_neox": ("query_key_value",),
    "gpt_neox_japanese": ("query_key_value",),
    "gpt_oss": _QV,
    "gptj": _QV,
    "granite": _QV,
    "granitemoe": _QV,
    "helium": _QV,
    "hunyuan_v1_dense": _QV,
    "ijepa": (*_QV, *_QUERY_VALUE),
    "imagegpt": ("c_attn",),
    "layoutlm": _QUERY_VALUE,
    "layoutlmv3": _QUERY_VALUE,
    "lilt": _QUERY_VALUE,
    "llama": _QV,
    "llama4": _QV,
    "llama4_text": _QV,
    "longformer": _QUERY_VALUE,
    "mamba": ("in_proj", "x_proj"),
    "mamba2": ("in_proj",),
    "mbart": _QV,
    "megatron-bert": _QUERY_VALUE,
    "metaclip_2": _QV,
    "ministral": _QV,
    "mistral": _QV,
    "mixtral": _QV,
    "mobilebert": _QUERY_VALUE,
    "mobilevit": (*_QV, *_QUERY_VALUE),
    "modernbert": ("Wqkv",),
    "modernbert-decoder": _QV,
    "mpnet": ("q", "v"),
    "mpt": ("Wqkv",),
    "mt5": ("q", "v"),
    "nemotron": _QV,
    "nemotron_h": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "nystromformer": _QUERY_VALUE,
    "olmo": _QV,
    "olmo2": _QV,
    "olmo3": _QV,
    "olmoe": _QV,
    "opt": _QV,
    "pegasus": _QV,
    "phi": (*_QV, "fc1", "fc2"),
    "phi3": ("qkv_proj",),
    "qwen2": _QV,
    "qwen2_moe": _QV,
    "qwen3": _QV,
    "qwen3_moe": _QV,
    "RefinedWeb": ("query_key_value",),
    "RefinedWebModel": ("query_key_value",),
    "rembert": _QUERY_VALUE,
    "roberta": _QUERY_VALUE,
    "roberta-prelayernorm": _QUERY_VALUE,
    "roc_bert": _QUERY_VALUE,
    "roformer": _QUERY_VALUE,
    "rwkv": ("key", "value", "receptance", "output"),
    "rwkv7": ("r_proj", "k_proj", "v_proj", "o_proj", "key", "value"),
    "seed_oss": _QV,
    "segformer": (*_QV, *_QUERY_VALUE),
    "siglip": _QV,
    "smollm3": _QV,
    "stablelm": _QV,
    "starcoder2": _QV,
    "swin": (*_QV, *_QUERY_VALUE),
    "swinv2": (*_QV, *_QUERY_VALUE),
    "t5": ("q", "v"),
    "umt5": ("q", "v"),
    "vit": (*_QV, *_QUERY_VALUE),
    "vit_msn": (*_QV, *_QUERY_VALUE),
    "xglm": _QV,
    "xlm": ("q_lin", "v_lin"),
    "xlm-roberta": _QUERY_VALUE,
    "xlm-roberta-xl": _QUERY_VALUE,
    "xlnet": ("layer_1", "layer_2"),
    "yoso": _QUERY_VALUE,
}
"""``config.model_type`` to suffixes, or a regular expression for whole names: attention queries and
values, as in PEFT, under whatever names an architecture or a version of transformers has for them;
what it has in their place, where it has none."""


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
    kept = [name for name in matched if in_layers(name, layers_to_transform)]
    if not kept:
        raise ValueError(
            f"layers_to_transform: no target module is in the layers {layers_to_transform}; "
            f"there are {_layers(matched)}"
        )
    return tuple(_site(name, modules[name]) for name in kept)


def is_all_linear(target_modules: str | Sequence[str] | None) -> bool:
    """Whether every linear map is meant, as PEFT writes it."""
    return isinstance(target_modules, str) and target_modules.lower() == ALL_LINEAR


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
        if isinstance(suffixes, str):
            return _match_text(model, modules, suffixes)
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
    if is_all_linear(text):
        output = model.get_output_embeddings()
        return [n for n, m in modules.items() if _is_linear(m) and m is not output]
    try:
        return [n for n in modules if re.fullmatch(text, n)]
    except re.error as error:
        raise ValueError(
            f"target_modules: {text!r} is not a regular expression ({error})"
        ) from None


def _default(model_type: str, modules: Mapping[str, nn.Module]) -> str | tuple[str, ...]:
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


def in_layers(name: str, layers: Sequence[int] | None) -> bool:
    """Whether a module or parameter is in one of these layers; None for all of them."""
    return not layers or _layer(name) in layers


def _inside(name: str, parents: Collection[str]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def _ends(name: str, suffix: str) -> bool:
    return name == suffix or name.endswith(f".{suffix}")


def _last(name: str) -> str:
    return name.rpartition(".")[2]
