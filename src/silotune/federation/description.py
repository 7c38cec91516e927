"""Description: a federation in objects, before anything is opened."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import torch
from annotated_types import Ge, Gt

from silotune.aggregation import ServerStep
from silotune.core import UploadType
from silotune.core.fields import check_value
from silotune.core.names import is_client_name
from silotune.core.protocols import check_satisfies
from silotune.data import Partition, Splits
from silotune.data.given import Table
from silotune.engine.experiment import LARGEST_UPDATE
from silotune.methods import FFALoRA, Method
from silotune.methods.rates import usual_optimizer
from silotune.methods.recipes import Facts, method_of, nearest, recipes
from silotune.models.load import GivenModel, check_given
from silotune.objectives import Objective
from silotune.optim import OptimizerConfig
from silotune.optim.learning_rate import Kind, Span
from silotune.privacy import PrivacyChoice, check_choice
from silotune.privacy.lifetime.choice import Lifetime, lifetime_of
from silotune.privacy.sizes import check_declared
from silotune.reports.trackers import TrackerName
from silotune.terms import Machine, Terms
from silotune.terms.rate_rules import refuse_without_rule
from silotune.terms.terms import Evaluation

from .description_rules import check_books, check_evaluation, check_label_map, check_places
from .records import ClientData, Records
from .sites import Sites


class Description:
    """A model, the clients' records, a method, a privacy choice, rounds and steps.

    Nothing is opened when it is made; all that can be checked without a record is.

    Attributes:
        terms: what all parties agree on.
        records: what this machine owns.
        machine: how it computes.
        lifetime: what its owner allows all runs on these records together; not agreed on.
        given: the model, where it is an object.
        runtime: where clients train: ``in-process``, in a ``pool``, or in a ``ray`` cluster.
        workers: processes of the pool, or of Ray where it has no GPUs.
        round_deadline: seconds until clients that are not in this process count as missing.
        wait_after_quorum: seconds for others after ``min_clients``; None = until the deadline.
        coordinator: what sites know this machine as, where clients are sites.
        offer_deadline: seconds for sites, or ``min_clients``, to accept; others may join later.
        learning_rate: ``auto`` until it is a number (``settling``); None where it is one.
        reasons: why what was left open was chosen so, each beginning with its field.
        baselines: research only: also train each client alone, to compare.
        report_to: also write metrics for these tools.
    """

    def __init__(
        self,
        *,
        model: str | Any,
        clients: str | Path | Mapping[str, ClientData] | Sites,
        objective: Objective,
        privacy: PrivacyChoice | None = None,
        tokenizer: Any = None,
        image_processor: Any = None,
        method: Method | Literal["auto"] | None = None,
        optimizer: OptimizerConfig | None = None,
        learning_rate: Literal["auto"] | None = None,
        rounds: int = 20,
        local_steps: int | None = None,
        local_epochs: float | None = None,
        batch_size: int = 128,
        evaluation: Evaluation = "simulation",
        eval_every: int = 1,
        lr_schedule: Kind = "constant",
        warmup_steps: int = 0,
        warmup_ratio: float = 0.0,
        lr_schedule_span: Span = "run",
        local_state: Literal["fresh", "carried"] = "fresh",
        proximal_mu: float = 0.0,
        server_optimizer: ServerStep | None = None,
        weighting: Literal["num_examples", "uniform"] | None = None,
        normalize_steps: bool = False,
        tail_average: float = 0.0,
        clients_per_round: int | None = None,
        cohort_rate: float | None = None,
        min_clients: int | None = None,
        largest_update: float = LARGEST_UPDATE,
        upload_dtype: UploadType = "float32",
        dtype: Literal["float32", "bfloat16"] = "float32",
        quantization: Literal["none", "8bit", "4bit"] = "none",
        products: Literal["float32", "bfloat16"] = "float32",
        gradient_checkpointing: Literal["none", "reentrant", "non-reentrant"] = "none",
        seed: int = 0,
        name: str | None = None,
        delimiter: str | None = None,
        encoding: str | None = None,
        sheet: str | None = None,
        label_map: Mapping[str, str | None] | None = None,
        splits: Splits | None = None,
        partition: Partition | None = None,
        valid: Table | None = None,
        test: Table | None = None,
        num_examples: int | Mapping[str, int] | None = None,
        num_held_out: int | Mapping[str, int] | None = None,
        valid_fraction: float = 0.1,
        person: str | None = None,
        limit: int | None = None,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        threads: int | None = None,
        micro_batch_size: int | Literal["auto"] = 32,
        eval_batch_size: int = 64,
        prefix_cache: Literal["off", "auto", "memory", "disk"] = "auto",
        crowd: int = 1,
        runtime: Literal["in-process", "pool", "ray"] = "in-process",
        workers: int = 2,
        round_deadline: float = 3600.0,
        wait_after_quorum: float | None = None,
        coordinator: str = "coordinator",
        offer_deadline: float = 7 * 24 * 3600.0,
        lifetime: Lifetime | Literal["off"] | None = None,
        baselines: tuple[Literal["silo-alone"], ...] = (),
        report_to: tuple[TrackerName, ...] = (),
    ) -> None:
        """Describe a federation.

        Args:
            model: hub name, folder, or a ``transformers.PreTrainedModel``, which is copied.
            clients: ``{client: table}``; a table is a ``datasets.Dataset``, a list of dicts, a file
                or a folder, or several by part (a ``DatasetDict``). Or one hub name, file or folder
                that ``partition`` divides. Or ``Sites(names)``, which keep theirs.
            objective: what is learned, and what records look like.
            privacy: ``ExampleDP``, ``ClientDP``, or ``NoDP()`` to say that nothing is hidden; one
                of them must be said.
            tokenizer: of a model that is an object.
            image_processor: the same for images.
            method: a method; None = FFA-LoRA; ``auto`` = what did best where it was measured
                nearest by public facts (``methods.recipes``).
            optimizer: takes the local steps; None = SGD, or AdamW for methods that are made of it,
                at the rate that is usual for method and privacy.
            learning_rate: ``auto`` = by a rule, of public numbers alone, in place of the usual one
                (``methods.rate_rule``); for SGD under ``ExampleDP``.
            rounds: see ``Terms``, as all fields up to ``seed``.
            local_steps: optimiser steps of each client in each round; None = 10, or
            local_epochs: the same as passes over a client's declared number of records.
            batch_size: records of one step.
            evaluation: who scores on what.
            eval_every: scored after so many rounds.
            lr_schedule: learning rate over the steps of all rounds.
            warmup_steps: steps in which it rises before that.
            warmup_ratio: the same as a share of all steps.
            lr_schedule_span: over the ``run``, or anew over every ``link`` of a chain.
            local_state: of the clients' optimisers: ``fresh`` in every round, or ``carried``.
            proximal_mu: FedProx's pull.
            server_optimizer: what the server does with the change.
            weighting: of clients in the mean; None = ``uniform`` under ``ClientDP``, else by size.
            normalize_steps: average changes by the step (FedNova).
            tail_average: share of the last rounds over whose states the result is the mean.
            clients_per_round: how many a round asks, drawn from the seed in public; None = all.
            cohort_rate: the same as a chance of every client.
            min_clients: that a round needs.
            largest_update: a larger change is refused.
            upload_dtype: of the numbers that clients send.
            dtype: of the frozen base.
            quantization: keep the base's linear maps in 8 or 4 bits.
            products: in which linear maps multiply that are not adapted.
            gradient_checkpointing: less memory, more time.
            seed: of all that is not secret.
            name: see ``Records``, as all fields up to ``limit``.
            delimiter: between the columns of csv and tsv files.
            encoding: of text files.
            sheet: of xlsx files.
            label_map: what records call a label -> its name in the label set; None: no label.
            splits: which part of a path is for what.
            partition: how one pool becomes clients.
            valid: records for everybody, to watch training by.
            test: records for everybody, for the final figure.
            num_examples: what each client declares.
            num_held_out: the same of held-out records.
            valid_fraction: share held out.
            person: column that names the person of each record.
            limit: at most so many records of each client.
            device: see ``Machine``, as all fields up to ``crowd``.
            threads: of each process; None = torch decides, and a pool's share the machine.
            micro_batch_size: records computed at once in training; auto = as many as fit.
            eval_batch_size: records computed at once when scoring.
            prefix_cache: where what lies below the lowest adapted layer is remembered.
            crowd: clients of a simulation that train together, in the same passes; 1 = none do.
            runtime: ``in-process``, ``pool`` or ``ray``.
            workers: processes of the pool, or of Ray where it has no GPUs.
            round_deadline: seconds until clients count as missing.
            wait_after_quorum: seconds for others after ``min_clients``; None = until the deadline.
            coordinator: what sites know this machine as, if clients are ``Sites``.
            offer_deadline: seconds in which each of them must have accepted the run; or with
                ``min_clients`` so many, and the others may join at the beginning of a round.
            lifetime: a ceiling of epsilon over all runs on the same records, and where their book
                is kept; None = recorded, without a ceiling; ``"off"`` for simulations on public
                data, which certificates then say.
            baselines: ``("silo-alone",)`` in a simulation.
            report_to: trackers of rounds: tensorboard, mlflow, wandb, trackio.

        Raises:
            ValueError: naming the field, if one is out of range or two do not go together.
        """
        if privacy is None:
            raise ValueError(
                "privacy: say who is hidden: ExampleDP(target_epsilon=...), ClientDP(...), or "
                "NoDP() to hide nobody"
            )
        is_name = isinstance(model, str | Path)
        self.given = None if is_name else GivenModel(model, tokenizer or image_processor)
        if self.given is None and (tokenizer is not None or image_processor is not None):
            raise ValueError(
                "tokenizer: a model that is a name brings its own; give the model as an object, or "
                "leave this out"
            )
        base = str(model) if self.given is None else self.given.name
        reasons: tuple[str, ...] = ()
        if method == "auto":
            recipe = nearest(_facts(base, objective, privacy, clients, num_examples), recipes())
            method, reasons = method_of(recipe), (f"method: {recipe.method['name']}, {recipe.why}",)
        method = FFALoRA() if method is None else method
        self.terms = Terms(
            model=base,
            objective=objective,
            method=method,
            optimizer=usual_optimizer(method, privacy, server_optimizer)
            if optimizer is None
            else optimizer,
            privacy=privacy,
            rounds=rounds,
            local_steps=local_steps,
            local_epochs=local_epochs,
            batch_size=batch_size,
            evaluation=evaluation,
            eval_every=eval_every,
            lr_schedule=lr_schedule,
            warmup_steps=warmup_steps,
            warmup_ratio=warmup_ratio,
            lr_schedule_span=lr_schedule_span,
            local_state=local_state,
            proximal_mu=proximal_mu,
            server_optimizer=server_optimizer,
            weighting=weighting or _usual_weighting(privacy),
            normalize_steps=normalize_steps,
            tail_average=tail_average,
            clients_per_round=clients_per_round,
            cohort_rate=cohort_rate,
            min_clients=min_clients,
            largest_update=largest_update,
            upload_dtype=upload_dtype,
            dtype=dtype,
            quantization=quantization,
            products=products,
            gradient_checkpointing=gradient_checkpointing,
            seed=seed,
        )
        for field, value, kind in (("splits", splits, Splits), ("partition", partition, Partition)):
            if value is not None and not isinstance(value, kind):
                raise ValueError(
                    f"{field}: give silotune.{kind.__name__}(...), not a {type(value).__name__}"
                )
        self.records = Records(
            clients=clients,
            name=name,
            delimiter=delimiter,
            encoding=encoding,
            sheet=sheet,
            label_map=label_map or {},
            splits=splits or Splits(),
            partition=partition or Partition(),
            valid=valid,
            test=test,
            num_examples=num_examples,
            num_held_out=num_held_out,
            valid_fraction=valid_fraction,
            person=person,
            limit=limit,
        )
        check_value("runtime", Literal["in-process", "pool", "ray"], runtime)
        check_value("workers", Annotated[int, Ge(1)], workers)
        shared = runtime == "pool" and threads is None
        self.machine = Machine(
            device=device,
            threads=max(1, torch.get_num_threads() // workers) if shared else threads,
            micro_batch_size=micro_batch_size,
            eval_batch_size=eval_batch_size,
            prefix_cache=prefix_cache,
            crowd=crowd,
        )
        check_value("round_deadline", Annotated[float, Gt(0)], round_deadline)
        check_value("wait_after_quorum", Annotated[float, Gt(0)] | None, wait_after_quorum)
        check_value("offer_deadline", Annotated[float, Gt(0)], offer_deadline)
        if not is_client_name(coordinator):
            raise ValueError("coordinator: cannot be a name that others know this machine by")
        check_value("baselines", tuple[Literal["silo-alone"], ...], _listed(baselines))
        check_value("report_to", tuple[TrackerName, ...], _listed(report_to))
        check_value("learning_rate", Literal["auto"] | None, learning_rate)
        if learning_rate and optimizer is not None:
            raise ValueError(
                "learning_rate: auto is of the usual optimizer, and there is one of your own with "
                "its rate; leave one of them out"
            )
        self.learning_rate: Literal["auto"] | None = learning_rate
        self.reasons = reasons
        self.lifetime = lifetime_of(lifetime)
        self.runtime = runtime
        self.workers = workers
        self.round_deadline = round_deadline
        self.wait_after_quorum = wait_after_quorum
        self.coordinator = coordinator
        self.offer_deadline = offer_deadline
        self.baselines = tuple(baselines)
        self.report_to = tuple(report_to)
        self._check()

    def _check(self) -> None:
        terms, records = self.terms, self.records
        if self.given is not None:
            check_given(self.given, terms.objective.task)
        check_label_map(terms, records)
        is_object = self.given is not None
        check_places(terms, records, self.runtime, self.wait_after_quorum, is_object=is_object)
        if self.learning_rate is not None:
            refuse_without_rule(terms)
        check_evaluation(terms, self.baselines)
        self.machine.check_processes(in_one_process=not (self.in_workers or records.elsewhere))
        check_books(terms, records, self.lifetime)

    def with_terms(self, terms: Terms) -> Self:
        """The same records and machine under other terms."""
        other = copy.copy(self)
        other.terms = terms
        return other

    def settled_at(self, optimizer: OptimizerConfig, reasons: tuple[str, ...]) -> Self:
        """With an optimiser in place of what was left open."""
        other = self.with_terms(replace(self.terms, optimizer=optimizer))
        other.learning_rate, other.reasons = None, (*self.reasons, *reasons)
        return other

    @property
    def in_workers(self) -> bool:
        """Whether its clients train in worker processes."""
        return self.runtime != "in-process"

    @property
    def is_recorded(self) -> bool:
        """Whether what its records pay is written into a book for life."""
        return self.lifetime.record and self.terms.unit == "example"

    @property
    def title(self) -> str:
        """For people: model and method."""
        name = self.terms.model.rstrip("/").rpartition("/")[2]
        return f"{name}, {self.terms.method.label}"


def _facts(
    model: str,
    objective: Objective,
    privacy: PrivacyChoice,
    clients: object,
    num_examples: int | Mapping[str, int] | None,
) -> Facts:
    """What is declared of a run; what is not in order is a ``ValueError`` that names its field."""
    check_satisfies(objective, Objective, "objective")
    check_choice(privacy)
    check_declared("num_examples", num_examples)
    names = objective.label_names
    declared = num_examples.values() if isinstance(num_examples, Mapping) else [num_examples]
    known = clients.names if isinstance(clients, Sites) else clients
    return Facts(
        task=objective.task,
        unit=privacy.unit,
        model=model,
        epsilon=getattr(privacy, "target_epsilon", None),
        labels=len(names) if names else None,
        silos=len(known) if isinstance(known, Mapping | tuple) else None,
        records=min((n for n in declared if n), default=None),
    )


def _listed(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _usual_weighting(privacy: object) -> Literal["num_examples", "uniform"]:
    return "uniform" if getattr(privacy, "unit", "") == "client" else "num_examples"
