"""The client's half of a round: load, train locally, seal what is shared.

``client_round`` is a function of its task and the silo's records; nothing of an earlier round or
of another client is left in the model it uses.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import chain, cycle, islice
from pathlib import Path

import torch

from silotune.adapters import AdaptedModel
from silotune.core import Batch, ClientId, Examples, Factors, Result, Task, append_line
from silotune.optim import Optimizer
from silotune.privacy import Charge, LedgerEntry, Privacy, SiloStore
from silotune.tasks import Objective

from .channel import seal


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """What the clients of one process share: the frozen base model and how to use it.

    Attributes:
        draw: the tensors that a seed decides, so that they need not travel.
        micro_batch: records that go through the model at once.
    """

    adapted: AdaptedModel
    objective: Objective
    optimizer: Optimizer
    draw: Callable[[int], Factors]
    micro_batch: int


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a silo allows a run to cost: epsilon at most, at this delta."""

    epsilon: float
    delta: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Silo:
    """What one client owns. Nothing of it leaves except through its mechanism.

    Attributes:
        train: records to learn from.
        held_out: records to score on, at home; None if there are none.
        home: the silo's own folder, for its ledger, what it sent last and its scores. A private
            round needs it.
        budget: None when no epsilon was set.
    """

    client: ClientId
    train: Examples
    held_out: Examples | None
    privacy: Privacy
    home: Path | None = None
    budget: Budget | None = None


def client_round(task: Task, bench: Bench, silo: Silo) -> Result:
    """Train one round, or send again what an earlier attempt at this round already released.

    A release is charged to the silo's ledger before it leaves. A task that the budget cannot pay
    for is refused, and nothing is trained.

    Raises:
        ValueError: if the task does not fit the model or training breaks down.
    """
    if not silo.privacy.private:
        return _result(task, seal(_train(task, bench, silo), task))
    if silo.home is None:
        raise ValueError(f"silo {silo.client} needs a folder of its own to keep its ledger in")
    with SiloStore(silo.home) as store:
        return _private_round(task, bench, silo, store)


def _private_round(task: Task, bench: Bench, silo: Silo, store: SiloStore) -> Result:
    fingerprint = _fingerprint(task)
    earlier = store.sealed(task.run, task.round, fingerprint)
    if earlier is not None:
        return _result(task, earlier, resent=True)
    charge, budget = silo.privacy.charge(task.steps), silo.budget
    if charge and budget and not store.affords(task.run, charge, budget.epsilon, budget.delta):
        return _result(task, b"", refusal=f"its budget of epsilon {budget.epsilon:g} is spent")
    sealed = seal(_train(task, bench, silo), task)
    entry = _entry(task, silo.privacy, charge, store) if charge else None
    store.release(task.run, task.round, fingerprint, sealed, entry)
    return _result(task, sealed)


def received(task: Task, bench: Bench) -> Factors:
    """The task's whole state: what was sent and what its seed decides.

    Raises:
        ValueError: if the drawn tensors are not those the server drew.
    """
    if task.seeded is None:
        return task.factors
    drawn = bench.draw(task.seeded.seed)
    frozen = Factors({key: drawn[key] for key in task.seeded.keys})
    if frozen.digest() != task.seeded.digest:
        raise ValueError(
            "the frozen tensors drawn from the seed differ from the server's (SHA-256): "
            "the models or the versions of torch are not the same"
        )
    return task.factors.updated(frozen)


def microbatches(
    indices: Sequence[int], lengths: Sequence[int], size: int
) -> Iterator[Sequence[int]]:
    """Cut a batch into parts of at most ``size`` records of similar length: little padding."""
    ordered = sorted(indices, key=lambda i: (lengths[i], i))
    return (ordered[i : i + size] for i in range(0, len(ordered), size))


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move every tensor."""
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _train(task: Task, bench: Bench, silo: Silo) -> Factors:
    """Local steps under the plan; returns the shared tensors."""
    adapted = bench.adapted
    adapted.load(received(task, bench))
    adapted.model.train()
    tensors = adapted.train_only(task.plan.trained())
    optimizer = bench.optimizer.build(tensors, task.learning_rate)
    batches = silo.privacy.batches(len(silo.train.lengths), task.steps, task.seed)
    dropped = 0
    phases = chain.from_iterable([p.roles] * p.steps for p in cycle(task.plan.phases))
    with torch.random.fork_rng(devices=_cuda(adapted.device)):
        torch.manual_seed(task.seed)  # adapter dropout has no other source; undone on leaving
        for roles, indices in zip(islice(phases, task.steps), batches, strict=True):
            optimizer.zero_grad()
            active = adapted.train_only(roles)
            records = _batches(silo.train, indices, bench)
            dropped += silo.privacy.gradients(active, adapted.sink, _losses(bench), records)
            optimizer.step()
    if dropped and silo.home is not None:  # private: it stays at the site
        append_line(silo.home / "dropped.jsonl", {"round": task.round, "records": dropped})
    return adapted.extract().only(task.plan.share)


def _losses(bench: Bench) -> Callable[[Batch], torch.Tensor]:
    return lambda batch: bench.objective.losses(bench.adapted.model, batch)


def _batches(examples: Examples, indices: Sequence[int], bench: Bench) -> Iterator[Batch]:
    for part in microbatches(indices, examples.lengths, bench.micro_batch):
        yield to_device(examples.batch(part), bench.adapted.device)


def _entry(task: Task, privacy: Privacy, charge: Charge, store: SiloStore) -> LedgerEntry:
    return LedgerEntry(
        run=task.run,
        silo=task.client,
        round=task.round,
        attempt=store.attempts(task.run, task.round),
        sampling_rate=charge.sampling_rate,
        noise_multiplier=charge.noise_multiplier,
        max_grad_norm=privacy.max_grad_norm,
        steps=charge.steps,
        time=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _cuda(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


def _fingerprint(task: Task) -> str:
    """What a retry must ask for to be given the same bytes."""
    orders = [*task.plan.outline(), task.steps, task.learning_rate, task.seed]
    frozen = task.seeded.digest if task.seeded else ""
    asked = [task.run, task.round, task.client, orders, task.factors.digest(), frozen]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()


def _result(task: Task, sealed: bytes, *, refusal: str = "", resent: bool = False) -> Result:
    return Result(
        run=task.run,
        round=task.round,
        client=task.client,
        sealed=sealed,
        refusal=refusal,
        resent=resent,
    )
