"""Checkpoints: configuration, weights and tokenizer or image processor, as their files have them.

From this machine; what is not here is asked of the hub, once and briefly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from textwrap import shorten
from typing import Any, Literal, NamedTuple

import torch
import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    BitsAndBytesConfig,
    PreTrainedConfig,
)

from silotune.objectives import Task
from silotune.objectives.registry import those

from . import quantised
from .hub import Location, require_hub
from .pooling import MeanPooledClassifier

Pooling = Literal["model", "mean", "cls", "last"]
Dtype = Literal["float32", "bfloat16"]


class Request(NamedTuple):
    """What is asked for; fields as of ``load_model``."""

    task: Task
    labels: tuple[str, ...]
    pooling: Pooling
    dtype: Dtype
    quantization: quantised.Quantization


class Parts(NamedTuple):
    """What was read.

    Attributes:
        model: a transformers model, or our classifier on one.
        missing: names of tensors that the checkpoint lacks, or has in another shape.
        tokenizer: None for images.
        image_processor: None for text.
    """

    model: Any
    missing: set[str]
    tokenizer: Any | None
    image_processor: Any | None


def read_anywhere(location: Location, request: Request) -> Parts:
    """From this machine; what is not here is asked of the hub, once and briefly."""
    try:
        return _read(location, request)
    except OSError as error:
        if location.is_folder:
            raise unusable(location.source, error) from None
    require_hub(location.source)
    try:
        return _read(replace(location, local=False), request)
    except OSError as error:
        raise unusable(location.source, error) from None


def _read(location: Location, request: Request) -> Parts:
    """Configuration, model and tokenizer or image processor.

    Raises:
        OSError: if files are not there.
        ValueError: if they are of no use.
    """
    try:
        config = AutoConfig.from_pretrained(
            location.source, local_files_only=location.local, use_cache=False
        )
        name_outputs(config, request.task, request.labels)
        zero_dropout(config)
        auto = _auto(config, request)
        model, missing = _model(location, config, auto, request)
        if request.task.own_classifier(request.pooling):
            model, missing = pooled(model, missing)
        elif request.task.embeds:
            missing = _without_pooler(model, missing)
        reader = _reader(location, request.task.reads)
        return Parts(model, missing, *readers(request.task, reader))
    except OSError:
        raise
    except Exception as error:  # transformers, tokenizers, safetensors: each has its own
        raise unusable(location.source, error) from error


def name_outputs(config: Any, task: Task, labels: Sequence[str]) -> None:
    """Write into a configuration what a head's outputs are called, and what they are for."""
    if not labels:
        return
    config.id2label = dict(enumerate(labels))
    config.label2id = {label: i for i, label in enumerate(labels)}
    if task.problem is not None:
        config.problem_type = task.problem


def read_shape(location: Location) -> nn.Module:
    """From the configuration alone, on a device that holds no numbers.

    Raises:
        OSError: if the file is not there.
        ValueError: if it is of no use.
    """
    try:
        config = AutoConfig.from_pretrained(location.source, local_files_only=location.local)
        with torch.device("meta"):
            model: nn.Module = AutoModel.from_config(config, trust_remote_code=False)
        return model
    except OSError:
        raise
    except Exception as error:
        raise unusable(location.source, error) from error


def _auto(config: Any, request: Request) -> Any:
    auto = auto_class(request.task, request.pooling)
    refuse_architecture(config, request.task)
    if type(config) not in auto._model_mapping:
        raise ValueError(
            f"a {config.model_type!r} model cannot do task: {request.task.name}; take "
            f"{request.task.families}"
        )
    return auto


def auto_class(task: Task, pooling: Pooling) -> Any:
    """What transformers loads a model of a task by; without a head where the head is ours."""
    return AutoModel if task.own_classifier(pooling) else getattr(transformers, task.auto)


def refuse_architecture(config: Any, task: Task) -> None:
    """Refuse an encoder with a decoder for a task of one stack, and the reverse.

    Raises:
        ValueError: with the kind of model to take, and the tasks that this one does.
    """
    pair = bool(getattr(config, "is_encoder_decoder", False))
    if pair == (task.architecture == "encoder-decoder"):
        return
    if pair:
        does = those(lambda t: t.architecture == "encoder-decoder")
        raise ValueError(
            f"model: {config.model_type} is an encoder and a decoder, and cannot do task: "
            f"{task.name}; take {task.families}, or set task: {does}"
        )
    raise ValueError(
        f"model: {config.model_type} is no encoder with a decoder, and cannot do task: "
        f"{task.name}; take {task.families}"
    )


def zero_dropout(config: Any) -> None:
    """Some models pass the number in their configuration to a function, not to a module."""
    for name, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            zero_dropout(value)
        elif isinstance(value, float) and "drop" in name:
            setattr(config, name, 0.0)


def _model(location: Location, config: Any, auto: Any, request: Request) -> tuple[Any, set[str]]:
    dtype = getattr(torch, request.dtype)
    model, info = auto.from_pretrained(
        location.source,
        config=config,
        dtype=dtype,
        local_files_only=location.local,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        trust_remote_code=False,
        **_quantized(config, auto, request.quantization),
    )
    missing = info["missing_keys"] | {mismatch[0] for mismatch in info["mismatched_keys"]}
    return quantised.packed(model, missing, dtype), missing


def _quantized(config: Any, auto: Any, asked: quantised.Quantization) -> dict[str, Any]:
    """What ``from_pretrained`` must know of a base that is, or is to be, quantised: on the CPU.

    Heads, which train, and output embeddings keep all their digits; 4 bits are QLoRA's NF4.
    """
    own = quantised.check_method(config, asked)
    if not own and asked == "none":
        return {}
    quantised.require_packages()
    if own:
        return {"device_map": {"": "cpu"}}
    with torch.device("meta"):
        whole: Any = auto.from_config(config, trust_remote_code=False)
    inside = f"{whole.base_model_prefix}." if whole.base_model is not whole else ""
    names = [n for n, m in whole.named_modules() if isinstance(m, nn.Linear)]
    method = BitsAndBytesConfig(
        load_in_8bit=asked == "8bit",
        load_in_4bit=asked == "4bit",
        bnb_4bit_quant_type="nf4",
        llm_int8_skip_modules=[n for n in names if not n.startswith(inside)],
    )
    return {"device_map": {"": "cpu"}, "quantization_config": method}


def pooled(encoder: Any, missing: set[str]) -> tuple[MeanPooledClassifier, set[str]]:
    """The encoder, without a pooler of its own, under the classifier."""
    if "pooler" in dict(encoder.named_children()):
        encoder.pooler = None
    model = MeanPooledClassifier(encoder, encoder.config.num_labels)
    kept = {key for key in missing if not key.startswith("pooler.")}
    prefixed = {f"{model.base_model_prefix}.{key}" for key in kept}
    return model, prefixed | {"classifier.weight", "classifier.bias"}


def _without_pooler(model: Any, missing: set[str]) -> set[str]:
    """Take away a pooler that the checkpoint lacks, as no vector is made of it; what is missing."""
    kept = {key for key in missing if not key.startswith("pooler.")}
    if kept != missing:
        model.pooler = None
    return kept


Readers = tuple[Any | None, Any | None]
"""Tokenizer and image processor; a task has one of them."""


def readers(task: Task, reader: Any) -> Readers:
    """What reads the records of a task, in its place."""
    return (reader, None) if task.reads == "text" else (None, reader)


def _reader(location: Location, reads: Literal["text", "image"]) -> Any:
    from transformers import AutoImageProcessor, AutoTokenizer  # these take seconds, too

    auto = AutoTokenizer if reads == "text" else AutoImageProcessor
    return auto.from_pretrained(
        location.source, local_files_only=location.local, trust_remote_code=False
    )


def read_tokenizer(location: Location) -> Any:
    """The tokenizer alone, from this machine.

    Raises:
        OSError: if it is not there.
        ValueError: if it is of no use.
    """
    try:
        return _reader(replace(location, local=True), "text")
    except OSError:
        raise
    except Exception as error:
        raise unusable(location.source, error) from error


def unusable(source: str, error: Exception) -> ValueError:
    """A refusal with the reason."""
    why = str(error).removeprefix("model: ")
    return ValueError(f"model: {source} cannot be used: {shorten(why, 300)}")
