"""What a method is: a frozen dataclass whose fields are its options, and which gives the axes.

One file a paper. The class says what the method is called, what paper it is from, what it does in a
sentence, whether its average is exact, what it does to noise and what travels; its four functions
``adapter``, ``schedule``, ``optimizer`` and ``aggregator`` give the axes, and only those are
written that differ from plain LoRA, averaged. Everything else follows: the command line, the
configuration, the pages, the laws.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, fields, replace
from enum import Enum
from typing import Annotated, ClassVar, Literal, Self

from annotated_types import Ge, Gt, Lt

from silotune.adapters import Adapter, Init, LoRA
from silotune.aggregation import Aggregator, Mean
from silotune.core.protocols import check_satisfies
from silotune.optim import AdamW, AltLoRAConfig, LoRAFAConfig, LoRAProConfig, OptimizerConfig
from silotune.schedules import Schedule

from .axes import Axes, IncompatibleMethodError, with_rule
from .options import About, Word, check_options

NOT_SAID = "not said."


class Kind(Enum):
    """What is particular about a method; the catalogue is in this order."""

    SHARING = "what is trained, and what of it is shared"
    COMBINING = "how the server combines"
    CHAIN = "subspaces, one after another"
    OPTIMIZER = "the optimiser that moves a pair"
    LAYER = "what the layers compute"
    OWN = "somebody's own"


@dataclass(frozen=True, kw_only=True)
class OwnAxes:
    """Axes that somebody puts in the place of a method's; None leaves the method's."""

    adapter: Adapter | None = None
    schedule: Schedule | None = None
    optimizer: OptimizerConfig | None = None
    aggregator: Aggregator | None = None


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """A federated fine-tuning method and its options; the names are those of PEFT.

    Class attributes that every method has:
        name: what YAML and the command line say.
        title: what people say.
        sentence: what it does, without a full stop.

    Those that it may have:
        kind: what is particular about it.
        paper: arXiv numbers, separated by commas.
        exact: whether its average is exact, and by what it is off.
        noise: how privacy noise enters B A.
        up: numbers that travel from one client for one adapted layer of (out, in) features in a
            usual round; r is the rank, K the number of clients. Heads travel besides.
        down: likewise to one client.
        made_of_adamw: whether its own optimiser is made of AdamW, and of no other.
        rate_scale: the learning rate that suits it, by FedIT's (``rates``); at least 1 where one
            factor of a pair moves, since the other one cannot turn against it.
        lends_rule: whether it is a way to combine and nothing else, so that other methods may be
            combined in its way.

    Raises:
        ValueError: naming the option that is wrong.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    sentence: ClassVar[str]
    kind: ClassVar[Kind] = Kind.OWN
    paper: ClassVar[str] = ""
    exact: ClassVar[str] = NOT_SAID
    noise: ClassVar[str] = NOT_SAID
    up: ClassVar[str] = NOT_SAID
    down: ClassVar[str] = NOT_SAID
    made_of_adamw: ClassVar[bool] = False
    rate_scale: ClassVar[float] = 1.0
    lends_rule: ClassVar[bool] = False

    r: Annotated[int, Ge(1), About("Rank of the adapters.")] = 8
    ranks: Annotated[
        dict[str, Annotated[int, Ge(1)]] | None,
        About(
            "Ranks of silos that differ from `r`, silo: rank, for methods that combine products "
            "alone (flexlora, flora, xgblora) or fill pairs up (hetlora). A silo may be a pattern "
            "of `*` and `?`: its own name counts first, then the longest pattern. The largest rank "
            "is that of the shared adapter, by which lora_alpha is divided (with flexlora, by each "
            "silo's own)."
        ),
    ] = None
    lora_alpha: Annotated[float, Gt(0), About("Adapters are scaled by lora_alpha / r.")] = 8.0
    lora_dropout: Annotated[
        float, Ge(0), Lt(1), About("Share of an adapter's inputs set to zero in training.")
    ] = 0.0
    target_modules: Annotated[
        Word | tuple[Word, ...] | None,
        About(
            "Layers to adapt: a list of name endings, one regular expression over whole names, or "
            "all-linear; null = the usual ones of the architecture.",
            examples=("[query, value]",),
        ),
    ] = None
    target_parameters: Annotated[
        tuple[Word, ...] | None,
        About(
            "Experts to adapt, where a model keeps those of a layer in one tensor: name endings of "
            "such tensors, beside `target_modules`, which may then be empty. Not where single "
            "records are hidden: they share the experts.",
            examples=("[experts.gate_up_proj, experts.down_proj]",),
        ),
    ] = None
    layers_to_transform: Annotated[
        tuple[Annotated[int, Ge(0)], ...] | None,
        About("Adapt only in these layers, counted from 0; null = in all."),
    ] = None
    use_rslora: Annotated[
        bool, About("Scale by lora_alpha / sqrt(r) instead (arXiv 2312.03732).")
    ] = False
    init_lora_weights: Annotated[
        Literal["kaiming", "orthonormal", "svd", "pissa", "olora"],
        About(
            "How A begins: Kaiming-uniform (the paper); orthonormal rows; or from the singular "
            "vectors of the public base weights, with B = 0. Or how A and B do, as a part of these "
            "weights that is taken out of the base: its singular triples (pissa, arXiv 2404.02948) "
            "or its QR (olora, arXiv 2406.01775). The last three not where fresh pairs are drawn."
        ),
    ] = "kaiming"
    init_from: Annotated[
        Word | None,
        About(
            "An adapter to start from: a folder in PEFT's format, or of a run of ours. Base, r, "
            "scale and target modules must be the same. A, B and a head that lies in it are taken "
            "over, so that the first round begins with what it computes; relative paths start at "
            "the current working directory."
        ),
    ] = None
    aggregation: Method | None = field(default=None, metadata={"option": False})
    own: OwnAxes = field(default=OwnAxes(), repr=False, metadata={"option": False})

    def __post_init__(self) -> None:
        for each in fields(self):
            if isinstance(value := getattr(self, each.name), list):
                object.__setattr__(self, each.name, tuple(value))
        check_options(self)
        rule = self.aggregation
        if rule is not None and not (isinstance(rule, Method) and rule.lends_rule):
            name = type(rule).__name__
            raise ValueError(f"aggregation: {name} is no method in whose way others may combine")
        if rule is not None and self.own.aggregator is not None:
            raise ValueError(
                "aggregation: there is an aggregator of your own; leave one of them out"
            )

    @abstractmethod
    def schedule(self, *, head: bool) -> Schedule:
        """What moves, is shared and is folded, in which round.

        Args:
            head: whether there is one, and it moves.
        """

    def adapter(self) -> Adapter | None:
        """The parametrisation; None where there is none. Unless a class says otherwise, LoRA."""
        return self.pair()

    def optimizer(self, given: OptimizerConfig) -> OptimizerConfig:
        """How clients move what they train; unless a class says otherwise, as it is given.

        Raises:
            IncompatibleMethodError: if it cannot be made of the one that is given.
        """
        return given

    def aggregator(self) -> Aggregator:
        """How the server combines; unless a class says otherwise, the mean of every tensor."""
        return Mean()

    def opened(self, base_model: str) -> Self:
        """The method with whatever its options name read from disk, which most do not.

        Args:
            base_model: name or folder of the model that it is for.

        Raises:
            ValueError: if something cannot be read.
        """
        return self

    def axes(self, optimizer: OptimizerConfig, *, head: bool) -> Axes:
        """The method at work.

        Args:
            optimizer: takes the local steps, or is what the method's own is made of.
            head: whether there is one, and it moves.

        Raises:
            IncompatibleMethodError: if the combination would be wrong.
        """
        axes = Axes(
            schedule=self.own.schedule or self.schedule(head=head),
            optimizer=self.own.optimizer or self.optimizer(optimizer),
            adapter=self.own.adapter or self.adapter(),
            aggregator=self.own.aggregator or self.aggregator(),
        )
        if self.aggregation is not None:
            rule = replace(self.aggregation, r=self.r, ranks=self.ranks)
            axes = with_rule(axes, rule.aggregator())
        in_weight = Init(self.init_lora_weights).in_weight
        if in_weight and axes.adapter and not isinstance(axes.adapter, LoRA):
            raise IncompatibleMethodError(
                f"init_lora_weights: {self.init_lora_weights} takes a pair out of the base beside "
                f"which it trains alone, and {self.title} has no such pair; leave it out"
            )
        if in_weight and self.ranks:
            raise IncompatibleMethodError(
                f"ranks: a silo of a smaller rank would lack a part of the weight that "
                f"{self.init_lora_weights} takes out of the base; use svd, or one rank for all"
            )
        if self.ranks and not axes.aggregator.mixes_ranks:
            raise IncompatibleMethodError(
                "ranks: this method averages A and B by themselves, and tensors of unequal shapes "
                "have no mean; use flexlora or flora, or one rank for all"
            )
        if self.ranks and axes.aggregator.scales_by_rank and _divides_by_scale(axes.optimizer):
            raise IncompatibleMethodError(
                f"ranks: {self.title} divides gradients by one scale, and here every rank has its "
                "own; set rank_scale to shared"
            )
        return axes

    def with_(
        self,
        *,
        adapter: Adapter | None = None,
        schedule: Schedule | None = None,
        optimizer: OptimizerConfig | None = None,
        aggregator: Aggregator | None = None,
    ) -> Self:
        """The method with axes of your own in the place of its own; None leaves what there is.

        Raises:
            ValueError: if an axis lacks a member of its protocol.
        """
        own = self.own
        if adapter is not None:
            check_satisfies(adapter, Adapter, "adapter")
            own = replace(own, adapter=adapter)
        if schedule is not None:
            check_satisfies(schedule, Schedule, "schedule")
            own = replace(own, schedule=schedule)
        if optimizer is not None:
            check_satisfies(optimizer, OptimizerConfig, "optimizer")
            own = replace(own, optimizer=optimizer)
        if aggregator is not None:
            check_satisfies(aggregator, Aggregator, "aggregator")
            own = replace(own, aggregator=aggregator)
        return replace(self, own=own)

    @classmethod
    def sample(cls, *, r: int, clients: int) -> Self:
        """One to count the bytes of, without looking at any model or file.

        Args:
            r: the rank.
            clients: how many take part in a round.
        """
        return cls(r=r)

    def pair(self) -> LoRA:
        """Plain LoRA with these options."""
        return LoRA(
            rank=self.largest_rank,
            alpha=self.lora_alpha,
            dropout=self.lora_dropout,
            rslora=self.use_rslora,
            init=Init(self.init_lora_weights),
        )

    @property
    def largest_rank(self) -> int:
        """That of the shared adapter."""
        return max(self.r, *(self.ranks or {}).values(), 1)

    @property
    def label(self) -> str:
        """For people: ``lora-rite``, or ``lora-rite combined as fedex-lora``."""
        return f"{self.name} combined as {self.aggregation.name}" if self.aggregation else self.name

    @property
    def full_title(self) -> str:
        """For people: ``LoRA-RITE``, or ``LoRA-RITE, combined as in FedEx-LoRA``."""
        rule = self.aggregation
        return f"{self.title}, combined as in {rule.title}" if rule else self.title

    @property
    def description(self) -> str:
        """What it does, in a sentence or two; axes of somebody's own are named."""
        told = [_cited(self)]
        if self.aggregation is not None:
            told.append(
                "In place of that average, adapters are combined as in "
                f"{self.aggregation.title}: {_cited(self.aggregation)}"
            )
        for each in fields(self.own):
            if (axis := getattr(self.own, each.name)) is not None:
                told.append(f"Its {each.name} is {type(axis).__name__}.")
        return " ".join(told)

    def _adamw(self, given: OptimizerConfig) -> AdamW:
        """For methods whose own optimiser is made of AdamW.

        Raises:
            IncompatibleMethodError: if it is given another one.
        """
        if not isinstance(given, AdamW):
            raise IncompatibleMethodError(
                f"{self.title} is an optimiser of its own, made of AdamW: set optimizer to adamw"
            )
        return given


def _divides_by_scale(optimizer: OptimizerConfig) -> bool:
    return isinstance(optimizer, AltLoRAConfig | LoRAFAConfig | LoRAProConfig)


def _cited(method: Method) -> str:
    paper = f" (arXiv {method.paper})" if method.paper else ""
    return f"{method.sentence}{paper}."
