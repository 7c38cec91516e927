"""What somebody chooses: who is hidden, at what price, by which mechanism. No data, no model.

    ExampleDP   every record, by noise at its client (DP-SGD, ``privacy.mechanisms.dp_sgd``)
    ClientDP    every client as a whole, by noise at a trusted server
                (``privacy.mechanisms.dp_fedavg``)
    NoDP        nobody

Either a budget is given or the noise; ``calibration`` makes the mechanisms. What is not proved is
refused when a choice is made, all of it at once, a line each that begins with the field.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

from silotune.core.fields import check_fields

from .accounting.accountant import COARSE, FINE, MIN_DELTA, epsilon
from .accounting.charges import AnyCharge, Relation
from .accounting.dominance import dominated

WHOLE = 0.005
"""By what part of itself a client sampling rate may miss 1 / a whole number: 0.333 means 1 / 3."""

MOST = 1e9
"""Of any number that is given: nobody means more, and an accountant overflows somewhere beyond."""

_TOGETHER = (
    "correlated belongs to sampling: rotation, and rotation to correlated; no guarantee is proved "
    "here for one without the other"
)

Unit = Literal["example", "client", "none"]
"""What is hidden: each record, each client as a whole, or nothing."""

Problems = Iterator[tuple[str, str]]
"""Fields, and what is wrong with them."""


@dataclass(frozen=True, kw_only=True)
class PrivacyBudget:
    """What its owner allows a run to cost: epsilon at most, at this delta, under this relation.

    Attributes:
        covers: charges that fit in it together. Only ``covering`` gives them, and a copy with
            another field (``replace``) has none.
    """

    epsilon: float
    delta: float
    relation: Relation = "add-remove"
    covers: tuple[AnyCharge, ...] = field(default=(), init=False, compare=False)

    def covering(self, charges: Iterable[AnyCharge]) -> PrivacyBudget:
        """The same, which knows of charges that they fit, if they do.

        Then nothing has to be computed of any that are no dearer.

        Args:
            charges: all that one silo is expected to be charged at worst.
        """
        budget, covers = replace(self), tuple(charges)
        if self.affords(covers):
            object.__setattr__(budget, "covers", covers)
        return budget

    def affords(self, charges: Sequence[AnyCharge]) -> bool:
        """Whether charges of one silo fit together; figures on both grids are upper bounds."""
        return dominated(charges, self.covers) or any(
            epsilon(charges, self.delta, relation=self.relation, grid=grid) <= self.epsilon
            for grid in (COARSE, FINE)
        )


@dataclass(frozen=True, kw_only=True)
class ExampleDP:
    """Hide every single record from whoever sees what its client sends.

    Attributes:
        target_epsilon: budget of each client for the whole run; give it or ``noise_multiplier``.
        noise_multiplier: std of the noise in units of ``max_grad_norm``.
        target_delta: below 1 / the number of records of every client.
        max_grad_norm: C, the largest L2 norm of one record's gradient over all that is trained.
        relation: when data sets are neighbours.
        sampling: how records come into a batch.
        max_batch_size: most records in a batch of ``truncated-poisson``; None = 4 batch sizes.
        noise: its kind; ``correlated`` belongs to ``rotation``.
        bands: how many steps correlated noise reaches back; None = the best for the run.
        count_noise: let each client release its number of records once, with Gaussian noise of this
            many records, as its weight, which is at most twice the number that it declares.
        metric_noise: the same of its right answers on held-out records, whenever they are scored.
        insecure_seeded_noise: draw noise and coins from the seed. NOT PRIVATE.
        reserve_rounds: rounds paid for in advance, for those that must be trained again.

    Raises:
        ValueError: if a field is out of range, or nothing is proved for the combination.
    """

    unit: ClassVar[Unit] = "example"

    target_epsilon: float | None = None
    noise_multiplier: float | None = None
    target_delta: float = 1e-5
    max_grad_norm: float = 1.0
    relation: Relation = "add-remove"
    sampling: Literal["poisson", "truncated-poisson", "rotation"] = "poisson"
    max_batch_size: int | None = None
    noise: Literal["gaussian", "discrete", "correlated"] = "discrete"
    bands: int | None = None
    count_noise: float | None = None
    metric_noise: float | None = None
    insecure_seeded_noise: bool = False
    reserve_rounds: int = 1

    def __post_init__(self) -> None:
        check_fields(self)
        _refuse(
            *_price(self),
            *_positive(self, "max_grad_norm", "count_noise", "metric_noise"),
            *_least(self, 1, "max_batch_size", "bands"),
            *_records(self),
        )

    @property
    def budget(self) -> PrivacyBudget | None:
        """What every client enforces; None if the noise was given instead."""
        return _budget(self)


@dataclass(frozen=True, kw_only=True)
class ClientDP:
    """Hide every client with all its records, by noise at a server that is trusted.

    Attributes:
        target_epsilon: budget of every client for the whole run; give it or ``noise_multiplier``.
        noise_multiplier: std of the noise in units of ``max_update_norm``.
        target_delta: below 1 / the number of clients.
        max_update_norm: S, the largest L2 norm of what a client changes in a round; where clipping
            adapts, the first one.
        relation: when federations are neighbours; ``replace-one`` is not proved.
        sampling: ``poisson``, by a secret coin; or ``rotation``, each in its turn.
        client_sampling_rate: chance of a client to take part in a round; in a rotation, 1 / the
            number of rounds in which each has one turn.
        noise: its kind; ``correlated`` over rounds belongs to ``rotation``.
        bands: how many rounds correlated noise reaches back; None = the best for the run.
        adaptive_clipping: let S follow ``target_quantile`` (arXiv 1905.03871).
        target_quantile: share of clients whose change it is to leave whole.
        insecure_seeded_noise: draw cohorts and noise from the seed. NOT PRIVATE.
        reserve_rounds: rounds paid for in advance, for those that must be trained again.

    Raises:
        ValueError: if a field is out of range, or nothing is proved for the combination.
    """

    unit: ClassVar[Unit] = "client"
    count_noise: ClassVar[None] = None
    metric_noise: ClassVar[None] = None

    target_epsilon: float | None = None
    noise_multiplier: float | None = None
    target_delta: float = 1e-5
    max_update_norm: float = 1.0
    relation: Relation = "add-remove"
    sampling: Literal["poisson", "rotation"] = "poisson"
    client_sampling_rate: float = 1.0
    noise: Literal["gaussian", "correlated"] = "gaussian"
    bands: int | None = None
    adaptive_clipping: bool = False
    target_quantile: float = 0.5
    insecure_seeded_noise: bool = False
    reserve_rounds: int = 1

    def __post_init__(self) -> None:
        _refuse(
            *_hides_records(self, "sampling", "truncated-poisson", "use poisson"),
            *_hides_records(self, "noise", "discrete", "use gaussian or correlated"),
        )
        check_fields(self)
        _refuse(
            *_price(self),
            *_positive(self, "max_update_norm"),
            *_least(self, 1, "bands"),
            *_server(self),
        )

    @property
    def budget(self) -> PrivacyBudget | None:
        """What the server enforces for every client; None if the noise was given instead."""
        return _budget(self)

    @property
    def turns(self) -> int:
        """Rounds in which a rotation asks every client once."""
        return round(1 / self.client_sampling_rate)


@dataclass(frozen=True)
class NoDP:
    """Nothing is hidden."""

    unit: ClassVar[Unit] = "none"
    count_noise: ClassVar[None] = None
    metric_noise: ClassVar[None] = None
    target_epsilon: ClassVar[None] = None
    noise: ClassVar[Literal["none"]] = "none"
    sampling: ClassVar[Literal["none"]] = "none"
    insecure_seeded_noise: ClassVar[bool] = False

    @property
    def budget(self) -> None:
        """None."""
        return


PrivacyChoice = ExampleDP | ClientDP | NoDP


def check_choice(privacy: object) -> None:
    """Refuse what says of nobody whether it is hidden.

    Raises:
        ValueError: naming the field.
    """
    if not isinstance(privacy, PrivacyChoice):
        raise ValueError(
            "privacy: give silotune.ExampleDP(...), silotune.ClientDP(...) or silotune.NoDP(), "
            f"not {privacy!r}"
        )


def _refuse(*problems: tuple[str, str]) -> None:
    if problems:
        raise ValueError("\n".join(f"{field}: {text}" for field, text in problems))


def _budget(choice: ExampleDP | ClientDP) -> PrivacyBudget | None:
    if choice.target_epsilon is None:
        return None
    return PrivacyBudget(
        epsilon=choice.target_epsilon, delta=choice.target_delta, relation=choice.relation
    )


def _price(choice: ExampleDP | ClientDP) -> Problems:
    """Either a budget or the noise itself, and what both choices have in common."""
    if choice.target_epsilon is None and choice.noise_multiplier is None:
        yield "target_epsilon", "needed; set it (6, say), or noise_multiplier, or choose no privacy"
    elif choice.target_epsilon is not None and choice.noise_multiplier is not None:
        yield (
            "target_epsilon",
            "each determines the other, so give this or noise_multiplier, and set the other to "
            "None",
        )
    yield from _positive(choice, "target_epsilon", "noise_multiplier")
    yield from _least(choice, 0, "reserve_rounds")
    if not MIN_DELTA <= choice.target_delta < 1.0:
        yield "target_delta", f"must be at least {MIN_DELTA:g} and below 1"


def _records(choice: ExampleDP) -> Problems:
    """What clients do with their records."""
    yield from _correlated(choice)
    if choice.sampling == "truncated-poisson":
        if choice.relation != "zero-out":
            yield "relation", "sampling: truncated-poisson is proved for zero-out alone; set it"
    elif choice.max_batch_size is not None:
        yield "max_batch_size", "is for sampling: truncated-poisson; leave it out"
    if choice.relation == "replace-one" and choice.count_noise is not None:
        yield (
            "count_noise",
            "relation: replace-one takes the number of records as known to everybody; declare "
            "it (num_examples) and leave this out",
        )


def _server(choice: ClientDP) -> Problems:
    """What the server does with its clients."""
    if choice.relation == "replace-one":
        yield "relation", "hidden clients know add-remove and zero-out; choose one"
    yield from _correlated(choice)
    if not 0.0 < choice.client_sampling_rate <= 1.0:
        yield "client_sampling_rate", "must be above 0 and at most 1"
        return
    if not 0.0 < choice.target_quantile < 1.0:
        yield "target_quantile", "must be between 0 and 1"
    if choice.noise != "correlated":
        return
    if choice.adaptive_clipping:
        yield (
            "adaptive_clipping",
            "noise: correlated needs the same clipping norm in every round; set it to false",
        )
    if abs(choice.turns * choice.client_sampling_rate - 1.0) > WHOLE:
        yield (
            "client_sampling_rate",
            f"in a rotation it is 1 / a whole number of turns; set it to {1 / choice.turns:.4g}",
        )


def _correlated(choice: ExampleDP | ClientDP) -> Problems:
    """Correlated noise and rotation, for records or clients."""
    if (choice.noise == "correlated") != (choice.sampling == "rotation"):
        yield "noise", _TOGETHER
    if choice.bands is not None and choice.noise != "correlated":
        yield "bands", "is for noise: correlated; leave it out"


def _hides_records(choice: ClientDP, name: str, value: str, cure: str) -> Problems:
    if getattr(choice, name) == value:
        yield name, f"{value} is for hiding single records, not clients; {cure}"


def _positive(choice: ExampleDP | ClientDP, *names: str) -> Problems:
    for name in names:
        value = getattr(choice, name)
        if value is not None and not 0.0 < value <= MOST:
            yield name, f"must be a positive number of at most {MOST:g}, not {_shown(value)}"


def _least(choice: ExampleDP | ClientDP, least: int, *names: str) -> Problems:
    for name in names:
        value = getattr(choice, name)
        if value is not None and (not isinstance(value, int) or value < least):
            yield name, f"must be a whole number of at least {least}, not {value}"
        elif value is not None and value > MOST:
            yield name, f"must be at most {MOST:g}, not {_shown(value)}"


def _shown(value: float) -> str:
    """A number that may have any number of digits."""
    try:
        return f"{value:g}"
    except OverflowError:
        return "one of hundreds of digits"
