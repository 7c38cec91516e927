"""The client's half of a round: refusals, retries and charges around local training.

``client_round`` is a function of its task and the client's records. What leaves under privacy is a
result whose fields are all public or charged; errors end at the client (``client_errors``). An
order that was not agreed is not obeyed (``client_agreement``). The training itself is in
``local_training``; a crowd's is in ``crowd``, and all else of its clients' rounds here (``Order``).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Generator
from dataclasses import replace
from functools import partial

from silotune.core import ClientTask, ClientUpdate, append_line, tensors_of
from silotune.core.dataset import digest
from silotune.core.durable import Written, settle
from silotune.linalg import NumericalError
from silotune.privacy import CorrelatedCharge, NoiseState, SiloStore

from . import local_memory, personalization
from .channel import seal
from .client_errors import broken_down, failed, over_budget, result
from .client_releases import affords, charged, noisy_records, pay_for_life
from .client_state import start_of
from .local_training import Trained, Training, local_training
from .participants import Client, LocalTrainer
from .remembered import plain
from .turned import turned

Order = Generator[Training | Written, Trained | None, ClientUpdate]
"""One client's round. It gives out its training, once or not at all, and waits for the result; and
what it has written wherever that must be on the disk before it goes on."""


def client_round(task: ClientTask, trainer: LocalTrainer, client: Client) -> ClientUpdate:
    """Train one round, or send again what an earlier attempt at this round already released.

    A release is charged to the silo's ledger before it leaves. A task that the budget cannot pay
    for is refused, and nothing is trained.

    Raises:
        ValueError: if the task was not agreed, does not fit the model or training breaks down;
            under privacy only if the silo has no folder.
    """
    order = client_order(task, trainer, client)
    try:
        due = next(order)
        while True:
            if isinstance(due, Training):
                due = answered(order, partial(alone, due, trainer))
            else:
                due = answered(order, partial(settle, due))
    except StopIteration as done:
        update: ClientUpdate = done.value
        return update


def client_order(task: ClientTask, trainer: LocalTrainer, client: Client) -> Order:
    """The same round, of which whoever goes through it does the training.

    Raises:
        ValueError: as ``client_round``.
    """
    if not client.secretive:
        return (yield from _round(task, trainer, client))
    home = client.folder
    try:
        return (yield from _round(task, trainer, client))
    except Exception as error:
        return failed(task, home, error)


def answered(order: Order, work: Callable[[], Trained | None]) -> Training | Written:
    """What an order gives out next.

    Args:
        order: has given out what is due.
        work: does that; what it raises is the client's to tell.

    Raises:
        StopIteration: with the update, at the end.
    """
    try:
        done = work()
    except Exception as error:
        return order.throw(error)
    return order.send(done)


def alone(training: Training, trainer: LocalTrainer) -> Trained:
    """One client's training by itself."""
    past, memory = training.past, training.memory
    return local_training(
        training.task, trainer, training.client, training.start, memory=memory, past=past
    )


def _round(task: ClientTask, trainer: LocalTrainer, client: Client) -> Order:
    yield from client.checking_order(task, "trained")
    if not client.privacy.private:
        return (yield from _open_round(task, trainer, client))
    with client.store() as store:
        return (yield from _private_round(task, trainer, client, store))


def _open_round(task: ClientTask, trainer: LocalTrainer, client: Client) -> Order:
    try:
        sealed = yield from _trained(task, trainer, client, None)
    except NumericalError:
        return broken_down(task, client.home)
    _accept(task, client)
    return result(task, sealed)


def _private_round(
    task: ClientTask, trainer: LocalTrainer, client: Client, store: SiloStore
) -> Order:
    fingerprint = _fingerprint(task)
    meters = noisy_records(task, client, store)
    if meters is None:
        return over_budget(task)
    earlier = store.sealed(task.run, task.round, fingerprint)
    if earlier is not None:
        _accept(task, client)
        return replace(result(task, earlier, resent=True), meters=meters)
    if not store.may_train(task.run, task.round):
        raise ValueError(
            "what was sent for this round is lost, and correlated noise may not be drawn for it "
            "again; begin a new run"
        )
    charge = client.privacy.charge(task.steps)
    if isinstance(charge, CorrelatedCharge) and not store.still_holds(
        task.run, digest(plain(client.train))
    ):
        raise ValueError(
            "the training records are not those that this run began with, and correlated noise "
            "needs the same ones in every round; bring them back, or begin a new run"
        )
    if charge and not affords(client, store, task.run, charge):
        return over_budget(task)
    past = store.past(task.run) if isinstance(charge, CorrelatedCharge) else None
    sealed = yield from _trained(task, trainer, client, past)
    entry = charged(task, client, store, charge) if charge else None
    if entry:
        pay_for_life(client, entry)
    yield from store.releasing(task.run, task.round, fingerprint, sealed, entry)
    _accept(task, client)
    return replace(result(task, sealed), meters=meters)


def _accept(task: ClientTask, client: Client) -> None:
    """From now on, rounds begin from what this one left with the client, if anything."""
    if client.home is None:
        return
    if task.plan.trained() - task.plan.share:
        personalization.accept(client.home, task, _fingerprint(task))
    if task.remembers_since is not None:
        local_memory.accept(client.home, task, _fingerprint(task))


def _trained(
    task: ClientTask, trainer: LocalTrainer, client: Client, past: NoiseState | None
) -> Generator[Training, Trained | None, bytes]:
    """Local steps; returns the shared tensors, sealed, and drafts what stays with the client."""
    start = start_of(task, trainer, client)
    carried = task.remembers_since is not None
    memory = local_memory.kept(client.folder, task) if carried else {}
    end = yield Training(task=task, client=client, start=start, memory=memory, past=past)
    assert end is not None, "whoever is given a training gives back what came of it"
    if end.dropped and client.home is not None:  # private: it stays at the site
        append_line(client.home / "dropped.jsonl", {"round": task.round, "records": end.dropped})
    if personal := task.plan.personal(end.factors):
        personalization.draft(client.folder, task, _fingerprint(task), personal)
    if carried:
        local_memory.draft(client.folder, task, _fingerprint(task), end.memory)
    shared, began = task.plan.shared(end.factors), task.plan.shared(start)
    if task.plan.turn:
        shared = turned(shared, began, task.plan.turn)
    return seal(shared, task, began)


def _fingerprint(task: ClientTask) -> str:
    """What a retry must ask for to be given the same bytes."""
    orders = [task.plan.outline(), task.rank, task.steps, task.learning_rates, task.seed]
    orders += [] if task.remembers_since is None else [task.remembers_since]
    state = [task.factors.digest(), tensors_of(task.folded).digest()]
    drawn = [seeded.digest for seeded in task.seeded]
    asked = [task.run, task.round, task.client, orders, state, drawn]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()
