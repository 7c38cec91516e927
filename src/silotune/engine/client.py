"""The client's half of a round: load, train locally, seal what is shared.

``client_round`` is a function of its task and the silo's records; nothing of an earlier round or
of another client is left in the model it uses. What leaves under privacy is a result whose fields
are all public or charged; errors end at the silo (``client_errors``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, cycle, islice
from pathlib import Path

import torch

from silotune.adapters import AdaptedModel
from silotune.core import (
    Batch,
    ClientDataset,
    ClientId,
    ClientTask,
    ClientUpdate,
    Factors,
    append_line,
    tensors_of,
    unbounded,
)
from silotune.core.dataset import digest
from silotune.linalg import NumericalError
from silotune.objectives import Objective
from silotune.optim import OptimizerConfig
from silotune.privacy import ClientMechanism, CorrelatedCharge, NoiseState, PrivacyBudget, SiloStore
from silotune.privacy.ledger.noisy_counts import Releases

from .channel import seal
from .client_errors import discreet, result
from .client_releases import affords, charged, noisy_records
from .personalization import accept, draft, kept

LOST = (
    "what it sent for this round is lost, and correlated noise may not be drawn for it again; "
    "begin a new run"
)
"""Why a round cannot be had a second time."""

CHANGED = (
    "its training records are not those that this run began with, and correlated noise needs the "
    "same ones in every round; bring them back, or begin a new run"
)
"""Why a run cannot go on."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LocalTrainer:
    """What the clients of one process share: the frozen base model and how to use it.

    Attributes:
        draw: the tensors that a seed decides, so that they need not travel.
        micro_batch: records that go through the model at once.
    """

    adapted: AdaptedModel
    objective: Objective
    optimizer: OptimizerConfig
    draw: Callable[[int], Factors]
    micro_batch: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Client:
    """What one client owns. Nothing of it leaves except through its mechanism.

    Attributes:
        train: records to learn from.
        held_out: records to score on, at home; None if there are none.
        home: the silo's own folder, for its ledger, what it sent last and its scores. A private
            round needs it.
        budget: None when no epsilon was set.
        releases: what it sends besides its update.
        discreet: whether its errors stay at home although its own mechanism hides nothing, since
            the server's does.
    """

    client: ClientId
    train: ClientDataset
    held_out: ClientDataset | None
    privacy: ClientMechanism
    home: Path | None = None
    budget: PrivacyBudget | None = None
    releases: Releases = field(default_factory=Releases)
    discreet: bool = False

    @property
    def secretive(self) -> bool:
        """Whether it says nothing of its own records that no mechanism covers."""
        return self.discreet or self.privacy.private


def client_round(task: ClientTask, bench: LocalTrainer, silo: Client) -> ClientUpdate:
    """Train one round, or send again what an earlier attempt at this round already released.

    A release is charged to the silo's ledger before it leaves. A task that the budget cannot pay
    for is refused, and nothing is trained.

    Raises:
        ValueError: if the task does not fit the model or training breaks down; under privacy only
            if the silo has no folder.
    """
    if not silo.secretive:
        return _open_round(task, bench, silo)
    home = own_folder(silo)

    def work() -> ClientUpdate:
        if not silo.privacy.private:
            return _open_round(task, bench, silo)
        with SiloStore(home) as store:
            return _private_round(task, bench, silo, store)

    return discreet(task, home, work)


def own_folder(silo: Client) -> Path:
    """Where a silo keeps what must not leave.

    Raises:
        ValueError: if it has none.
    """
    if silo.home is None:
        raise ValueError(f"silo {silo.client} needs a folder of its own to keep its ledger in")
    return silo.home


def spent(task: ClientTask, silo: Client) -> ClientUpdate:
    """The refusal of a silo whose budget cannot pay."""
    assert silo.budget is not None
    return result(task, refusal=f"its budget of epsilon {silo.budget.epsilon:g} is spent")


def _open_round(task: ClientTask, bench: LocalTrainer, silo: Client) -> ClientUpdate:
    try:
        sealed = seal(_train(task, bench, silo, None), task)
    except NumericalError as error:
        return result(task, refusal=f"its training broke down: {error}")
    _accept(task, silo)
    return result(task, sealed)


def _private_round(
    task: ClientTask, bench: LocalTrainer, silo: Client, store: SiloStore
) -> ClientUpdate:
    fingerprint = _fingerprint(task)
    meters = noisy_records(task, silo, store)
    if meters is None:
        return spent(task, silo)
    earlier = store.sealed(task.run, task.round, fingerprint)
    if earlier is not None:
        _accept(task, silo)
        return replace(result(task, earlier, resent=True), meters=meters)
    if not store.may_train(task.run, task.round):
        return result(task, refusal=LOST)
    charge = silo.privacy.charge(task.steps)
    if isinstance(charge, CorrelatedCharge) and not store.still_holds(task.run, digest(silo.train)):
        return result(task, refusal=CHANGED)
    if charge and not affords(silo, store, task.run, charge):
        return spent(task, silo)
    sealed = seal(_train(task, bench, silo, store.past(task.run)), task)
    entry = charged(task, silo, store, charge) if charge else None
    store.release(task.run, task.round, fingerprint, sealed, entry)
    _accept(task, silo)
    return replace(result(task, sealed), meters=meters)


def _accept(task: ClientTask, silo: Client) -> None:
    """From now on, rounds begin from the personal tensors of this one, if there are any."""
    if silo.home is not None and task.plan.trained() - task.plan.share:
        accept(silo.home, task, _fingerprint(task))


def received(task: ClientTask, bench: LocalTrainer) -> Factors:
    """The task's whole state: what was sent and what seeds decide.

    Raises:
        ValueError: if the drawn tensors are not those the server drew, or any are out of range.
    """
    whole = task.factors
    for seeded in task.seeded:
        drawn = bench.draw(seeded.seed).cut(task.rank)
        part = Factors({key: drawn[key] for key in seeded.keys})
        if part.digest() != seeded.digest:
            raise ValueError(
                "the tensors drawn from the seed differ from the server's (SHA-256): "
                "the models or the versions of torch are not the same"
            )
        whole = whole.updated(part)
    wild = unbounded(whole.updated(tensors_of(task.folded)))
    if wild is not None:
        raise ValueError(f"the server sent numbers in {wild} that are not finite, or too large")
    return whole


def start_of(task: ClientTask, bench: LocalTrainer, silo: Client) -> Factors:
    """What the silo begins from: the task's state, and its own tensors in place of the server's."""
    state = received(task, bench)
    if not task.plan.personal(state):
        return state
    return state.updated(kept(own_folder(silo), task))


def microbatches(
    indices: Sequence[int], lengths: Sequence[int], size: int
) -> Iterator[Sequence[int]]:
    """Cut a batch into parts of at most ``size`` records of similar length: little padding."""
    ordered = sorted(indices, key=lambda i: (lengths[i], i))
    return (ordered[i : i + size] for i in range(0, len(ordered), size))


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move every tensor."""
    return {name: tensor.to(device) for name, tensor in batch.items()}


def _train(task: ClientTask, bench: LocalTrainer, silo: Client, past: NoiseState | None) -> Factors:
    """Local steps under the plan; returns the shared tensors."""
    adapted = bench.adapted
    plan = task.plan
    adapted.load(start_of(task, bench, silo), task.folded)
    adapted.model.train()
    optimizer = bench.optimizer.build(adapted.tensors, task.learning_rate)
    draws = silo.privacy.draws(task.seed, past)
    batches = silo.privacy.batches(len(silo.train.lengths), task.steps, draws)
    dropped = 0
    phases = chain.from_iterable([p.roles] * p.steps for p in cycle(plan.phases))
    with torch.random.fork_rng(devices=_cuda(adapted.device)):
        torch.manual_seed(task.seed)  # adapter dropout has no other source; undone on leaving
        for roles, indices in zip(islice(phases, task.steps), batches, strict=True):
            optimizer.zero_grad()
            active = adapted.train_only(roles, plan.fixed)
            records = _batches(silo.train, indices, bench)
            dropped += silo.privacy.gradients(active, adapted.sink, _losses(bench), records, draws)
            optimizer.step()
    if dropped and silo.home is not None:  # private: it stays at the site
        append_line(silo.home / "dropped.jsonl", {"round": task.round, "records": dropped})
    end = adapted.extract()
    if mine := plan.personal(end):
        draft(own_folder(silo), task, _fingerprint(task), mine)
    return plan.shared(end)


def _losses(bench: LocalTrainer) -> Callable[[Batch], torch.Tensor]:
    return lambda batch: bench.adapted.losses(bench.objective.losses, batch)


def _batches(
    examples: ClientDataset, indices: Sequence[int], bench: LocalTrainer
) -> Iterator[Batch]:
    for part in microbatches(indices, examples.lengths, bench.micro_batch):
        yield to_device(examples.batch(part), bench.adapted.device)


def _cuda(device: torch.device) -> list[torch.device]:
    return [device] if device.type == "cuda" else []


def _fingerprint(task: ClientTask) -> str:
    """What a retry must ask for to be given the same bytes."""
    orders = [task.plan.outline(), task.rank, task.steps, task.learning_rate, task.seed]
    state = [task.factors.digest(), tensors_of(task.folded).digest()]
    drawn = [seeded.digest for seeded in task.seeded]
    asked = [task.run, task.round, task.client, orders, state, drawn]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()
