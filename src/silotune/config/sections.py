"""The sections of a configuration: every key with its type, default, unit and meaning.

A section knows the limits of each single key. What several keys mean together is in ``rules``.
"""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)

from silotune.aggregation.fedopt import ServerAdam, ServerMomentum, ServerStep, ServerYogi
from silotune.core import UploadType
from silotune.engine.experiment import LARGEST_UPDATE
from silotune.methods import Method
from silotune.methods.rates import Moved, usual_kind, usual_rate
from silotune.methods.registry import built_in
from silotune.objectives import TASKS, TaskName
from silotune.optim import SGD, AdamW, OptimizerConfig
from silotune.optim.learning_rate import Kind, Span

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
    task: TaskName = Field(
        description="What the model is for.",
        examples=[next(iter(TASKS))],
    )
    head: Literal["trained", "frozen"] = Field(
        default="trained",
        description="Whether the classification head moves; a trained head is clipped, noised "
        "and accounted like any adapter. Not for a task without a head.",
    )
    head_init: Literal["auto", "random", "label-prototypes", "checkpoint"] = Field(
        default="auto",
        description="How the head begins: from the seed; from embeddings of the names or "
        "descriptions in `data.labels` (public, so free of privacy cost; needs `pooling: mean`), "
        "and, of several labels on a record, each bias from how near they are to each other; "
        "or as the base model brings it. auto = label-prototypes where `pooling` is mean and "
        "`data.labels` are words, else random. Not for a task without a head.",
    )
    head_scale: float = Field(
        default=1.0,
        gt=0,
        description="The head is W0 + head_scale * V with V trained: smaller makes it slower than "
        "the adapters. Not for a task without a head.",
    )
    head_bias: Literal["trained", "frozen"] = Field(
        default="trained",
        description="Whether the head's bias moves with it, or stays as it began. It is the same "
        "for all records, so the steepest direction, and what silos of unlike labels disagree on. "
        "Not for a task without a head.",
    )
    pooling: Literal["model", "mean", "cls", "last"] = Field(
        default="model",
        description="What the head reads: what the architecture gives it, or the L2-normalised "
        "mean of the last hidden states (of texts only). For text-embedding, what makes one vector "
        "of a text: model = as the checkpoint's files say (those of sentence-transformers), the "
        "mean over tokens, the first token (cls), or the last.",
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="Number type of the frozen base; what is trained is float32."
    )
    quantization: Literal["none", "8bit", "4bit"] = Field(
        default="none",
        description="Keep the linear maps of the base in fewer bits, but for heads and output "
        "embeddings: bitsandbytes' LLM.int8 or QLoRA's NF4 (`pip install 'silotune[quantised]'`). "
        "They are dequantised to `dtype` when they are used. A folder that was saved quantised is "
        "read as it is.",
    )
    products: Literal["float32", "bfloat16"] = Field(
        default="float32",
        description="Number type in which linear maps of a float32 base multiply that are not "
        "adapted, and gradients through them; weights and sums stay float32. bfloat16 takes less "
        "time on machines that have such products (others are refused: measured at the start) and "
        "half as much memory again for weights. Under `privacy.unit: example` its rounding couples "
        "records, so that they go through the model one by one.",
    )
    gradient_checkpointing: Literal["none", "reentrant", "non-reentrant"] = Field(
        default="none",
        description="Recompute activations in the backward pass: less memory, more time.",
    )


class TrainConfig(BaseModel):
    """Rounds, steps and the optimiser."""

    model_config = STRICT

    num_rounds: int = Field(default=20, ge=1, description="Federated rounds.")
    local_steps: int | None = Field(
        default=None,
        ge=1,
        description="Optimiser steps of each silo in each round; null = 10, unless "
        "`num_local_epochs` says it.",
        examples=[10],
    )
    num_local_epochs: float | None = Field(
        default=None,
        gt=0,
        description="The same as passes over a silo's declared number of records, rounded up to "
        "whole steps (expected ones under privacy): silos of unequal sizes take unequal steps. In "
        "place of `local_steps`.",
    )
    batch_size: int = Field(
        default=128,
        ge=1,
        description="Logical batch: records of one step; their expected number under privacy, "
        "where each record is drawn with probability batch_size / num_examples.",
    )
    per_device_train_batch_size: Annotated[int, Ge(1)] | Literal["auto"] = Field(
        default=32,
        description="Physical batch: records computed at once. Costs memory. auto: as many as "
        "fit by what one and two made-up records of `max_length` take; the run keeps the number "
        "(`run.json`: host). Results depend on it in their last bits. Only in one process.",
    )
    per_device_eval_batch_size: int = Field(
        default=64, ge=1, description="Records computed at once when scoring."
    )
    eval_every: int = Field(
        default=1, ge=1, description="Score after every so many rounds, and after the last."
    )
    optimizer: Literal["sgd", "adamw"] | None = Field(
        default=None,
        description="Local optimiser. null = sgd under "
        "`privacy.unit: example`, whose clipping bounds its steps, else adamw; and adamw where a "
        f"method has an optimiser of its own that is made of it ({MADE_OF_ADAMW}).",
    )
    learning_rate: Annotated[float, Gt(0)] | Literal["auto"] | None = Field(
        default=None,
        description="Step size of the local optimiser; null = the usual one of method, optimiser "
        "and privacy (a table is in [methods](methods.md#learning-rates)), which `plan` and `run` "
        "print. auto: by a rule, of public numbers alone, for SGD under `privacy.unit: example` "
        "where one factor of a pair moves ([choosing](methods.md#a-rate-by-rule)); the run keeps "
        "the number.",
    )
    momentum: float = Field(default=0.0, ge=0, lt=1, description="Momentum of sgd.")
    weight_decay: float = Field(
        default=0.0, ge=0, description="Weight decay of the local optimiser."
    )
    adam_beta1: float = Field(
        default=0.9,
        ge=0,
        lt=1,
        description="Decay of adamw's first moment, and of what a method makes of adamw.",
    )
    adam_beta2: float = Field(default=0.999, ge=0, lt=1, description="The same of the second.")
    adam_eps: float | None = Field(
        default=None,
        gt=0,
        description="Added to the root of the second moment; null = 1e-8, or what the method's own "
        "optimiser has (lora-rite and fedftg 1e-6).",
    )
    local_state: Literal["fresh", "carried"] = Field(
        default="fresh",
        description="What the local optimiser remembers of the silo's last round: nothing, or all "
        "of it, so that one silo by itself trains as without rounds. Carried memory stays in the "
        "silo's folder; it is dropped where fresh pairs begin, or A and B are written in another "
        "basis (unless it means the same there: lora-rite, lora-pro with `full_moments`, alt-lora "
        "with sgd). Not under `privacy.unit: client`.",
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
    upload_dtype: UploadType = Field(
        default="float32",
        description="Number type of what silos send. In bfloat16 or int8 it is the change of a "
        "round, rounded at random so that it is right on average, after any privacy noise: half or "
        "a quarter of the bytes.",
    )
    lr_scheduler_type: Kind = Field(
        default="constant",
        description="Learning rate over the steps of all rounds, as in transformers' Trainer: the "
        "same, or falling to 0 in a line or as half a cosine, after warming up.",
    )
    warmup_steps: int = Field(
        default=0, ge=0, description="Steps in which the learning rate rises. Not of constant."
    )
    warmup_ratio: float = Field(
        default=0.0, ge=0, lt=1, description="The same as a share of all steps; of both one is 0."
    )
    lr_scheduler_span: Span = Field(
        default="run",
        description="Whether the schedule goes over the run, or anew over every link of a chain, "
        "for methods that fold pairs (cola).",
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
    normalize_steps: bool = Field(
        default=False,
        description="FedNova: the server averages what silos change by the step, so that whoever "
        "takes more of them (`num_local_epochs`) counts for no more than its weight. For methods "
        "that average A and B by themselves; of adamw every step counts as one. Not under "
        "`privacy.unit: client`.",
    )
    tail_average: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="Share of the last rounds over whose states the result is the mean (arXiv "
        "1109.5647); 0 = it is the last state. Rounds go on from the last state; from the first of "
        "the share on, what is scored, saved and sent to sites is the mean so far. Costs no "
        "privacy. Where both factors of a pair move it is the mean of their products, so that the "
        "saved rank grows.",
        examples=[0.5],
    )
    clients_per_round: int | None = Field(
        default=None,
        ge=1,
        description="Silos that a round asks, drawn from `seed`; null = all. As anybody can draw "
        "them again, no epsilon is smaller for it: a silo pays for the rounds in which it trains. "
        "Under `privacy.unit: client` that is secret (`privacy.client_sampling_rate`).",
    )
    client_sampling_rate: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="The same as a chance: every silo is asked in a round with it, whoever else "
        "is, drawn from `seed` in public. A round that draws nobody leaves the model as it is.",
    )
    min_clients: int | None = Field(
        default=None,
        ge=1,
        description="Silos that a round needs; null = all that it asks. One for which "
        "`client_sampling_rate` draws fewer asks nobody.",
    )
    round_deadline: float = Field(
        default=3600.0,
        gt=0,
        description="Seconds that a round may take before silos count as missing.",
    )
    wait_after_quorum: float | None = Field(
        default=None,
        gt=0,
        description="Seconds that a round of `federation.sites` waits for others, once "
        "`min_clients` of them have answered; null = until the deadline.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where to compute; auto = cuda where there is one."
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads of each process; null = torch decides; workers of a pool share.",
    )
    prefix_cache: Literal["off", "auto", "memory", "disk"] = Field(
        default="auto",
        description="What the layers below the lowest adapted one make of a record never changes: "
        "keep it until the run ends, in memory, or on the disk in a file without a name in the "
        "silo's folder. It is as good as the records. auto = in memory, up to 1 GB, of records "
        "that are scored or drawn twice or more (drawn five times where single records are hidden, "
        "as each is then computed alone); nothing where it does not fit the model. Of silos that "
        "are hidden, room is reckoned by declared numbers of records of full length.",
    )

    def moved_by(self, method: type[Method], clipped_at: float | None) -> Moved:
        """The local optimiser, the usual one where none is chosen; momentum is SGD's.

        Args:
            method: its class.
            clipped_at: the clipping norm of every record's gradient; None where it is not clipped.
        """
        if self.optimizer is None and self.momentum > 0 and not method.made_of_adamw:
            return "sgd"
        return self.optimizer or usual_kind(method, clipped_at)

    def usual_rate(self, method: type[Method], clipped_at: float | None) -> float:
        """The learning rate that the section has where none is chosen.

        Args:
            method: its class.
            clipped_at: as above.
        """
        return usual_rate(
            method,
            self.moved_by(method, clipped_at),
            clipped_at,
            momentum=self.momentum,
            server=self.build_server_optimizer(),
        )

    def build_optimizer(
        self, method: type[Method], clipped_at: float | None = None
    ) -> OptimizerConfig:
        """What takes the local steps, or what a method's own optimiser is made of.

        Args:
            method: its class.
            clipped_at: as above.
        """
        rate = self.learning_rate
        if rate is None or rate == "auto":
            rate = self.usual_rate(method, clipped_at)
        if self.moved_by(method, clipped_at) == "adamw" or method.made_of_adamw:
            return AdamW(
                lr=rate,
                weight_decay=self.weight_decay,
                betas=(self.adam_beta1, self.adam_beta2),
                eps=self.adam_eps,
            )
        return SGD(lr=rate, momentum=self.momentum, weight_decay=self.weight_decay)

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
