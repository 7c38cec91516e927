"""Terms: what all parties agree on before anything trains. Public; no record, no path to one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from silotune.aggregation import ServerStep
from silotune.core import UploadType
from silotune.core.fields import check_fields
from silotune.core.protocols import check_satisfies
from silotune.engine.cohorts import Cohorts
from silotune.engine.experiment import LARGEST_UPDATE
from silotune.methods import Axes, FFALoRA, Method
from silotune.methods.axes import completed, refuse_averaged, refuse_by_step, refuse_unproved
from silotune.objectives import Objective, counts_right_answers, find
from silotune.objectives.registry import COUNTING
from silotune.optim import OptimizerConfig
from silotune.optim.learning_rate import Kind, LearningRateSchedule, Span
from silotune.privacy import ClientDP, ExampleDP, NoDP, PrivacyChoice, check_choice
from silotune.privacy.choice import Unit
from silotune.privacy.planned_charges import Training

from .cohort_rules import check_cohorts

Evaluation = Literal["simulation", "site", "public"]


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Everything that decides a run but for the records and the machines.

    Attributes:
        model: hub name or folder of the base model, or the name of an object that was given.
        objective: what is learned, and what records look like.
        optimizer: takes the local steps, or is what the method's own is made of.
        method: what is trained, what is shared, how the server combines.
        privacy: who is hidden, and at what price.
        rounds: federated rounds.
        local_steps: optimiser steps of each client in each round; None = 10, unless
            ``local_epochs`` says it.
        local_epochs: the same as passes over a client's declared number of records, rounded up to
            whole steps; on average where coins draw them. Clients of unequal sizes then take
            unequal steps.
        batch_size: records of one step; their expected number under privacy.
        evaluation: who scores on what: ``simulation``, one machine sees everything, and epsilon
            does not cover the metrics; ``site``, each client at home; ``public``, on records that
            everybody may see.
        eval_every: scored after so many rounds, and after the last.
        lr_schedule: learning rate over the steps of all rounds, as in transformers' Trainer: the
            same, or falling to 0.
        warmup_steps: steps in which it rises before that.
        warmup_ratio: the same as a share of all steps.
        lr_schedule_span: whether it goes over the run, or anew over every link of a chain.
        local_state: of the clients' optimisers: begun afresh in every round, or carried on from
            the client's last one.
        proximal_mu: FedProx's pull towards where the round began; 0 = none.
        server_optimizer: what the server does with the change that the method decides; None takes
            it.
        weighting: of clients in the mean: declared sizes, or equal.
        normalize_steps: average clients' changes by the step (FedNova), where steps are unequal.
        tail_average: share of the last rounds over whose states the result is the mean; 0 = it is
            the last state. Rounds go on from the last state, and nothing is paid for it.
        clients_per_round: how many of the clients a round asks, drawn from the seed in public, so
            that no epsilon is smaller for it; None = all, or whom ``ClientDP`` draws in secret.
        cohort_rate: chance of each client to be asked in a round, whoever else is, drawn in the
            same way; a round may then ask nobody, and leaves the model as it is.
        min_clients: that a round needs; None = all that it asks. Where ``cohort_rate`` draws fewer,
            a round asks nobody.
        largest_update: a change of a larger L2 norm is refused. Not looked at under ``ClientDP``,
            which clips.
        upload_dtype: of the numbers that clients send; in 16 or 8 bits they are rounded at random,
            after the noise, and right on average.
        dtype: of the frozen base; what is trained is float32.
        quantization: keep the linear maps of the frozen base in fewer bits (bitsandbytes).
        products: of the linear maps of the base that are not adapted: in bfloat16 they take less
            time where a machine has such products.
        gradient_checkpointing: recompute activations in the backward pass.
        seed: of A, the head, splits and data order; never of privacy noise or coins.

    Raises:
        ValueError: naming the field, if one is out of range, two do not go together, or an object
            lacks a member of its protocol.
    """

    model: str
    objective: Objective
    optimizer: OptimizerConfig
    method: Method = field(default_factory=FFALoRA)
    privacy: PrivacyChoice = field(default_factory=NoDP)
    rounds: int = 20
    local_steps: int | None = None
    local_epochs: float | None = None
    batch_size: int = 128
    evaluation: Evaluation = "simulation"
    eval_every: int = field(default=1, metadata={"decides": False})
    lr_schedule: Kind = "constant"
    warmup_steps: int = 0
    warmup_ratio: float = 0.0
    lr_schedule_span: Span = "run"
    local_state: Literal["fresh", "carried"] = "fresh"
    proximal_mu: float = 0.0
    server_optimizer: ServerStep | None = None
    weighting: Literal["num_examples", "uniform"] = "num_examples"
    normalize_steps: bool = False
    tail_average: float = 0.0
    clients_per_round: int | None = None
    cohort_rate: float | None = None
    min_clients: int | None = None
    largest_update: float = LARGEST_UPDATE
    upload_dtype: UploadType = "float32"
    dtype: Literal["float32", "bfloat16"] = "float32"
    quantization: Literal["none", "8bit", "4bit"] = "none"
    products: Literal["float32", "bfloat16"] = "float32"
    gradient_checkpointing: Literal["none", "reentrant", "non-reentrant"] = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        check_satisfies(self.objective, Objective, "objective")
        check_satisfies(self.optimizer, OptimizerConfig, "optimizer")
        if self.server_optimizer is not None:
            check_satisfies(self.server_optimizer, ServerStep, "server_optimizer")
        if not isinstance(self.method, Method):
            raise ValueError(
                f"method: give a method, such as silotune.methods.FFALoRA(r=8), not {self.method!r}"
            )
        check_choice(self.privacy)
        check_fields(self)
        for name in (
            "rounds",
            "local_steps",
            "batch_size",
            "eval_every",
            "clients_per_round",
            "min_clients",
        ):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name}: must be at least 1, not {number}")
        if not self.largest_update > 0:
            raise ValueError(f"largest_update: must be positive, not {self.largest_update}")
        if self.local_epochs is not None and self.local_epochs <= 0:
            raise ValueError(f"local_epochs: must be above 0, not {self.local_epochs:g}")
        if None not in (self.local_steps, self.local_epochs):
            raise ValueError(
                "local_epochs: local_steps says how much a client trains in a round, and this "
                "would say it again; leave one of them out"
            )
        if self.proximal_mu < 0:
            raise ValueError(f"proximal_mu: must not be negative, not {self.proximal_mu}")
        if not 0 <= self.tail_average <= 1:
            raise ValueError(f"tail_average: must be a share from 0 to 1, not {self.tail_average}")
        check_cohorts(self.cohorts, self.min_clients, self.privacy)
        self._check_privacy()
        axes = self.axes(head=self.trains_head)
        self._check_start(axes)
        self._check_experts(axes)
        self._check_local_state(axes)
        self._check_learning_rate(axes)

    @property
    def unit(self) -> Unit:
        """What is hidden: ``example``, ``client`` or ``none``."""
        return self.privacy.unit

    @property
    def private(self) -> bool:
        """Whether a mechanism, at the clients or at the server, hides their records."""
        return self.unit != "none"

    @property
    def hiding(self) -> ExampleDP | ClientDP:
        """The privacy choice of a run that hides somebody."""
        assert not isinstance(self.privacy, NoDP), "asked of a run without privacy"
        return self.privacy

    @property
    def moved_by(self) -> str:
        """For people: ``sgd, learning rate 0.5``."""
        return f"{type(self.optimizer).__name__.lower()}, learning rate {self.optimizer.lr:g}"

    @property
    def trains_head(self) -> bool:
        """Whether there is a head, and it moves."""
        return find(self.objective.task).head and self.objective.head == "trained"

    @property
    def training(self) -> Training:
        """What is public of the run, and decides its price."""
        return Training(
            rounds=self.rounds,
            local_steps=self.local_steps,
            local_epochs=self.local_epochs,
            batch_size=self.batch_size,
            scores=-(-self.rounds // self.eval_every),  # rounded up: the last one is scored
            seed=self.seed,
        )

    def steps_of(self, size: int) -> int:
        """Local steps in one round of a client that declares so many records."""
        return self.training.steps_of(size)

    def training_of(self, clients: int) -> Training:
        """The same, where no client of so many trains in more rounds than it is asked in."""
        most = self.cohorts.most_asked(clients, self.seed, self.rounds)
        return replace(self.training, rounds=max(1, most))

    @property
    def cohorts(self) -> Cohorts:
        """Whom rounds ask, drawn in public."""
        least = self.min_clients or 1
        return Cohorts(number=self.clients_per_round, rate=self.cohort_rate, least=least)

    @property
    def learning_rate_schedule(self) -> LearningRateSchedule:
        """How the learning rate goes."""
        return LearningRateSchedule(
            kind=self.lr_schedule,
            warmup_steps=self.warmup_steps,
            warmup_ratio=self.warmup_ratio,
            span=self.lr_schedule_span,
        )

    def scored(self, finished_rounds: int) -> bool:
        """Whether the state after so many rounds is scored."""
        due = finished_rounds % self.eval_every == 0 or finished_rounds == self.rounds
        return finished_rounds > 0 and due

    def axes(self, *, head: bool) -> Axes:
        """The method at work, with the optimisers of both sides.

        Args:
            head: whether there is one, and it moves.

        Raises:
            IncompatibleMethodError: if the combination would be wrong, or is not proved.
        """
        axes = self.method.axes(self.optimizer, head=head)
        axes = completed(axes, self.proximal_mu, self.server_optimizer)
        refuse_unproved(axes, self.unit, correlated=self.privacy.noise == "correlated")
        if self.normalize_steps:
            refuse_by_step(axes, self.unit)
        if self.tail_average:
            refuse_averaged(axes)
        return axes

    def without_start(self) -> Terms:
        """For a model that gets all of its tensors from elsewhere, wherever they began."""
        if self.method.init_from is None:
            return self
        return replace(self, method=replace(self.method, init_from=None))

    def _check_start(self, axes: Axes) -> None:
        """That a trained adapter can be what the method begins from."""
        method, adapter = self.method, axes.adapter
        if method.init_from is None:
            return
        if adapter is not None and not adapter.starts_from_pairs:
            raise ValueError(f"init_from: {adapter.no_start_because}; leave it out")
        if method.ranks and set(method.ranks.values()) != {method.largest_rank}:
            raise ValueError(
                "init_from: silos of a smaller rank would begin with a part of the adapter; leave "
                "ranks out"
            )
        redrawn = any(plan.fold for plan in axes.schedule.plans())
        if method.init_lora_weights != "kaiming" and not redrawn:
            raise ValueError(
                f"init_lora_weights: {method.init_lora_weights} says how A begins, and A comes "
                "from init_from; leave one of them out"
            )

    def _check_experts(self, axes: Axes) -> None:
        """That pairs beside experts in one tensor can be trained so."""
        method, adapter = self.method, axes.adapter
        if not method.target_parameters:
            return
        if adapter is None or not adapter.serves_experts:
            kind = type(adapter).__name__ if adapter else "nothing"
            raise ValueError(
                "target_parameters: experts that are one tensor can have plain pairs, and "
                f"{method.name} has {kind}; leave it out, or take a method of pairs, such as fedit"
            )
        if isinstance(self.privacy, ExampleDP):
            raise ValueError(
                "target_parameters: a record's tokens are sent to experts together with those of "
                "other records, so that no gradient of a single record can be clipped there; leave "
                "it out (target_modules reaches all else), or take unit: client or none"
            )
        if method.lora_dropout > 0:
            raise ValueError(
                "lora_dropout: must be 0 with target_parameters: what an expert's A reads is never "
                "seen by itself"
            )
        if self.dtype != "float32":
            raise ValueError(
                "target_parameters: experts compute on the sum of their weight and the pair, which "
                f"in {self.dtype} rounds away what is learned; set dtype to float32"
            )

    def _check_local_state(self, axes: Axes) -> None:
        """That carrying is proved, and that something is carried."""
        if self.local_state == "fresh":
            return
        if isinstance(self.privacy, ClientDP):
            raise ValueError(
                "local_state: carried is not proved under ClientDP, whose price takes clients that "
                "remember nothing of the rounds before; set it to fresh"
            )
        later = range(1, self.rounds)
        if later and all(axes.remembers_since(round) == round for round in later):
            raise ValueError(
                "local_state: carried would carry nothing, since this method begins with other A "
                "and B, or another basis of them, in every round; set it to fresh"
            )

    def _check_learning_rate(self, axes: Axes) -> None:
        """That a schedule has the steps that it needs."""
        schedule, folds = self.learning_rate_schedule, any(p.fold for p in axes.schedule.plans())
        if schedule.span == "link" and not folds:
            raise ValueError(
                "lr_schedule_span: link is for methods that fold pairs, such as cola, and this one "
                "does not; set it to run"
            )
        if self.local_epochs is None:
            self.check_warmup(axes, self.steps_of(1))

    def check_warmup(self, axes: Axes, local_steps: int) -> None:
        """That the learning rate has risen before a client has taken all of its steps.

        Args:
            axes: of the method.
            local_steps: of the client in one round.

        Raises:
            ValueError: if it has not.
        """
        schedule = self.learning_rate_schedule
        course = axes.link_of(0, self.rounds) if schedule.span == "link" else range(self.rounds)
        steps = len(course) * local_steps
        if schedule.warmup_steps >= steps:
            raise ValueError(
                f"warmup_steps: must be below the {steps} steps that there are, not "
                f"{schedule.warmup_steps}; lower it"
            )

    def _check_privacy(self) -> None:
        privacy = self.privacy
        if isinstance(privacy, ClientDP):
            if self.weighting != "uniform":
                raise ValueError(
                    "weighting: must be uniform under ClientDP, or a large client's noise would be "
                    "too small; set it"
                )
            if self.min_clients is not None:
                raise ValueError(
                    "min_clients: ClientDP keeps secret who takes part, so rounds need no quorum; "
                    "leave it out"
                )
        if not isinstance(privacy, ExampleDP):
            return
        if self.method.lora_dropout > 0:
            raise ValueError(
                "lora_dropout: must be 0 under ExampleDP: a record's mask would depend on who else "
                "is in its batch, which clipping does not bound"
            )
        if privacy.count_noise is not None and self.weighting == "uniform":
            raise ValueError(
                "count_noise: is a weight, and weighting: uniform uses none; leave it out"
            )
        if privacy.metric_noise is not None and self.evaluation != "site":
            raise ValueError(
                "metric_noise: is for evaluation: site, where scores would otherwise stay at the "
                "client; leave it out"
            )
        if privacy.metric_noise is not None and not counts_right_answers(self.objective):
            raise ValueError(
                "metric_noise: counts right answers, at most one a record, which only "
                f"{' and '.join(kind.__name__ for kind in COUNTING)} themselves are known to do; "
                "leave it out"
            )
