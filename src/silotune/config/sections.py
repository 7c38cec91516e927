"""The sections of a configuration: every key with its type, default, unit and meaning.

A section knows the limits of each single key. What several keys mean together is in ``rules``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from silotune.aggregation.fedopt import ServerAdam, ServerMomentum, ServerStep, ServerYogi
from silotune.engine.experiment import LARGEST_UPDATE
from silotune.methods.registry import built_in
from silotune.optim import SGD, AdamW, OptimizerConfig

MADE_OF_ADAMW = ", ".join(name for name, m in built_in().items() if m.made_of_adamw)

STRICT = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


def _as_tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _as_name(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def _sorted(value: object) -> object:
    if not isinstance(value, dict):
        return value
    return dict(sorted(value.items(), key=lambda item: str(item[0])))


Text = Annotated[str, StringConstraints(min_length=1)]
Name = Annotated[Text, BeforeValidator(_as_name)]  # a label or a silo; 0 is the name "0"
Count = Annotated[int, Field(ge=1)]
AsTuple = BeforeValidator(_as_tuple)
Sorted = BeforeValidator(_sorted)


class ModelConfig(BaseModel):
    """The public base model and its head."""

    model_config = STRICT

    name_or_path: Text = Field(
        description="Hub name, or a folder in Hugging Face format (relative to the current "
        "working directory).",
        examples=["sentence-transformers/all-MiniLM-L6-v2"],
    )
    task: Literal["sequence-classification", "causal-lm", "image-classification"] = Field(
        description="What the model is for.",
        examples=["sequence-classification"],
    )
    head: Literal["trained", "frozen"] = Field(
        default="trained",
        description="Whether the classification head moves; a trained head is clipped, noised "
        "and accounted like any adapter. Not for causal-lm.",
    )
    head_init: Literal["random", "label-prototypes", "checkpoint"] = Field(
        default="random",
        description="How the head begins: from the seed; from embeddings of the descriptions in "
        "`data.labels` (public, so free of privacy cost; needs `pooling: mean`); or as the base "
        "model brings it. Not for causal-lm.",
    )
    head_scale: float = Field(
        default=1.0,
        gt=0,
        description="The head is W0 + head_scale * V with V trained: smaller makes it slower than "
        "the adapters. Not for causal-lm.",
    )
    pooling: Literal["model", "mean"] = Field(
        default="model",
        description="What the head reads: what the architecture gives it, or the L2-normalised "
        "mean of the last hidden states (sequence-classification only).",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Number type of the frozen base; what is trained is float32."
    )
    gradient_checkpointing: Literal["none", "reentrant", "non-reentrant"] = Field(
        default="none",
        description="Recompute activations in the backward pass: less memory, more time.",
    )


class SplitsConfig(BaseModel):
    """Which part of the data is for what."""

    model_config = STRICT

    train: Text | None = Field(
        default=None,
        description="File name inside `data.path`, or hub split, to train on; null = the one "
        "called train.",
    )
    valid: Text | None = Field(
        default=None,
        description="The one to score rounds on; null = the one called valid, validation or dev.",
    )
    test: Text | None = Field(
        default=None,
        description="The one to score the result on; null = the one called test or test_labeled.",
    )


class ColumnsConfig(BaseModel):
    """What the columns of the data are called; give those that your task needs."""

    model_config = STRICT

    text: Text | None = Field(default=None, description="Column of the text.")
    text_pair: Text | None = Field(
        default=None, description="Column of the second text of a pair (classification)."
    )
    label: Text | None = Field(default=None, description="Column of the label (classification).")
    prompt: Text | None = Field(
        default=None,
        description="Column of the prompt, not learned (causal-lm, with `completion`).",
    )
    completion: Text | None = Field(
        default=None, description="Column of the completion, learned (causal-lm, with `prompt`)."
    )
    messages: Text | None = Field(
        default=None, description="Column of chat messages, a list of {role, content} (causal-lm)."
    )
    image: Text | None = Field(
        default=None, description="Column of images, or of the bytes of JPEG or PNG files."
    )


class SilosConfig(BaseModel):
    """How records belong to silos: `by` a column, or dealt out to `num` silos (a simulation)."""

    model_config = STRICT

    by: Text | None = Field(default=None, description="Column that names the silo of each record.")
    num: int | None = Field(
        default=None, ge=1, description="Number of silos to deal records out to."
    )
    split: Literal["iid", "dirichlet", "quantity", "label-skew-mild", "label-skew-severe"] = Field(
        default="iid",
        description="How records are dealt out to `num` silos: evenly; with label shares from a "
        "Dirichlet distribution; in unequal amounts; with the label skews of the FFA-LoRA paper.",
    )
    alpha: float = Field(
        default=0.5,
        gt=0,
        description="Concentration of `dirichlet` and `quantity`; smaller = more skew.",
    )


class DataConfig(BaseModel):
    """The private records."""

    model_config = STRICT

    path: Text = Field(
        description="Hub name; file (csv, json, jsonl, parquet); folder with train.parquet and "
        "the like; image folder; folder of silos (`<silo>/train.jsonl`); or demo:triage. "
        "Relative paths start at the current working directory.",
        examples=["demo:triage"],
    )
    name: Text | None = Field(
        default=None, description="Configuration of a hub data set, such as sst2 of nyu-mll/glue."
    )
    splits: SplitsConfig = SplitsConfig()
    columns: ColumnsConfig = ColumnsConfig()
    labels: Annotated[tuple[Name, ...] | dict[Name, Text] | None, AsTuple] = Field(
        default=None,
        description="The public set of labels in order of ids; as a mapping, label: description "
        "(for `head_init: label-prototypes`). null = taken from the data once, with a notice.",
    )
    silos: SilosConfig = SilosConfig()
    num_examples: Annotated[Count | dict[Name, Count] | None, Sorted] = Field(
        default=None,
        description="Public number of training records that each silo declares, one number or "
        "silo: number. Sampling rates, denominators and the check of delta use only this. null = "
        "rounded down from the data once, with a notice; under privacy from 200 records on.",
    )
    num_held_out: Annotated[Count | dict[Name, Count] | None, Sorted] = Field(
        default=None,
        description="Public number of held-out records that each silo declares, one number or "
        "silo: number; noisy scores (`privacy.metric_noise`) are divided by it. null = rounded "
        "down from the data once, with a notice, from 200 records on.",
    )
    max_length: int = Field(
        default=128, ge=1, description="Tokens of a text or pair; the rest is cut."
    )
    valid_fraction: float = Field(
        default=0.1,
        ge=0,
        lt=1,
        description="Chance of each record to be held out for scoring when there is no valid split "
        "and `evaluation` is site or simulation. A record's own content decides, and no other one.",
    )
    person: Text | None = Field(
        default=None,
        description="Column that names the person of each record. It is not learned from; people "
        "with records at several silos are counted and the statement composes their silos.",
    )
    limit: int | None = Field(
        default=None, ge=1, description="Use at most this many records of each silo (quick looks)."
    )


class TrainConfig(BaseModel):
    """Rounds, steps and the optimiser."""

    model_config = STRICT

    num_rounds: int = Field(default=20, ge=1, description="Federated rounds.")
    local_steps: int = Field(
        default=10, ge=1, description="Optimiser steps of each silo in each round."
    )
    batch_size: int = Field(
        default=128,
        ge=1,
        description="Logical batch: records of one step; their expected number under privacy, "
        "where each record is drawn with probability batch_size / num_examples.",
    )
    per_device_train_batch_size: int = Field(
        default=32, ge=1, description="Physical batch: records computed at once. Costs memory."
    )
    per_device_eval_batch_size: int = Field(
        default=64, ge=1, description="Records computed at once when scoring."
    )
    eval_every: int = Field(
        default=1, ge=1, description="Score after every so many rounds, and after the last."
    )
    optimizer: Literal["sgd", "adamw"] = Field(
        default="sgd",
        description="Local optimiser; its state begins afresh each round. Where a method has an "
        f"optimiser of its own that is made of AdamW ({MADE_OF_ADAMW}), the default is adamw.",
    )
    learning_rate: float = Field(
        default=0.5,
        gt=0,
        description="Step size of the local optimiser. Under adamw the default is 0.001.",
    )
    momentum: float = Field(default=0.0, ge=0, lt=1, description="Momentum of sgd.")
    weight_decay: float = Field(
        default=0.0, ge=0, description="Weight decay of the local optimiser."
    )
    proximal_mu: float = Field(
        default=0.0,
        ge=0,
        description="FedProx: pull of every silo towards where its round began; 0 = none.",
    )
    server_optimizer: Literal["none", "momentum", "adam", "yogi"] = Field(
        default="none",
        description="What the server does with the change that the method decides: takes it; or "
        "steps with FedAvgM, FedAdam or FedYogi. Not where the method changes the basis of A, B.",
    )
    server_learning_rate: float | None = Field(
        default=None,
        gt=0,
        description="Step size of the server's optimiser; null = 1 for momentum, else 0.01.",
    )
    server_momentum: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Of `server_optimizer: momentum`; null = 0.9. The others keep their paper's "
        "0.9 and 0.99.",
    )
    largest_update: float = Field(
        default=LARGEST_UPDATE,
        gt=0,
        description="An update that changes what is shared by more than this (L2 norm) is refused "
        "and its silo left out of the round. Not looked at under `privacy.unit: client`, which "
        "clips.",
    )
    lr_scheduler_type: Literal["constant", "linear"] = Field(
        default="constant", description="Learning rate over rounds: the same, or falling towards 0."
    )
    seed: int = Field(
        default=0,
        ge=0,
        description="Seed of A, the head, splits and data order; never of privacy noise or "
        "Poisson sampling.",
    )
    weighting: Literal["num_examples", "uniform"] = Field(
        default="num_examples",
        description="Weights of the silos in the mean: declared sizes, or equal.",
    )
    min_clients: int | None = Field(
        default=None, ge=1, description="Silos that a round needs; null = all of them."
    )
    round_deadline: float = Field(
        default=3600.0,
        gt=0,
        description="Seconds that a round may take before silos count as missing.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where to compute; auto = cuda where there is one."
    )
    threads: int | None = Field(
        default=None, ge=1, description="CPU threads of each process; null = torch decides."
    )

    def build_optimizer(self, *, adamw: bool) -> OptimizerConfig:
        """What takes the local steps, or what a method's own optimiser is made of.

        Args:
            adamw: whether the method is made of AdamW, whatever the section says.
        """
        if self.optimizer == "adamw" or adamw:
            return AdamW(lr=self.learning_rate, weight_decay=self.weight_decay)
        return SGD(
            lr=self.learning_rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
        )

    def build_server_optimizer(self) -> ServerStep | None:
        """What the server steps with; its papers' numbers where none are given."""
        rate = self.server_learning_rate
        rates = {} if rate is None else {"learning_rate": rate}
        momentum = {} if self.server_momentum is None else {"momentum": self.server_momentum}
        match self.server_optimizer:
            case "none":
                return None
            case "momentum":
                return ServerMomentum(**rates, **momentum)
            case "adam":
                return ServerAdam(**rates)
            case "yogi":
                return ServerYogi(**rates)

    @model_validator(mode="before")
    @classmethod
    def _adamw_has_a_rate_of_its_own(cls, values: object) -> object:
        """Unless somebody says one: a step of 0.5 in every number would end everything."""
        if isinstance(values, dict) and values.get("optimizer") == "adamw":
            return {"learning_rate": 1e-3, **values}
        return values
