"""A crowd's rounds: every client's own, as ``client`` has them, but that training is shared.

What is refused, charged, noised and sent is every client's own business; where its turn comes to be
trained it waits for the others, and where what it has written must be on the disk, all wait once:
for the count of its order before it trains, for its bytes before they are charged for, and for the
charge before anything is told. If training together fails, each is trained by itself, so that an
error is told by the client whose it is and by no other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial

from silotune.core import ClientId, ClientTask, ClientUpdate, joinable
from silotune.core.durable import Written, settle_all

from .client import Order, alone, answered, client_order
from .crowd_training import train_together
from .local_training import Trained, Training
from .participants import Client, LocalTrainer

_LOG = logging.getLogger(__name__)


def crowd_round(
    tasks: Sequence[ClientTask], trainer: LocalTrainer, clients: Mapping[ClientId, Client]
) -> Iterator[ClientUpdate]:
    """What ``client_round`` gives for each of some tasks, to rounding; in any order.

    Args:
        tasks: of one round.
        trainer: whose adapter is ``crowdable``.
        clients: by name; those whose records are not ``Joinable`` train by themselves.

    Raises:
        ValueError: as ``client_round``.
    """
    with ExitStack() as stack:
        orders = [client_order(task, trainer, clients[task.client]) for task in tasks]
        for order in orders:
            stack.enter_context(closing(order))
        due = [(order, _given(partial(next, order))) for order in orders]
        while due:
            yield from (update for _, update in due if isinstance(update, ClientUpdate))
            written = [(order, it) for order, it in due if isinstance(it, Written)]
            trainings = [(order, it) for order, it in due if isinstance(it, Training)]
            due = [*trainings, *_settled(written)] if written else _after(trainings, trainer)


Given = Training | Written | ClientUpdate
"""What an order gives out, or ends with."""


def _given(go_on: Callable[[], Training | Written]) -> Given:
    try:
        return go_on()
    except StopIteration as done:
        update: ClientUpdate = done.value
        return update


def _settled(due: Sequence[tuple[Order, Written]]) -> list[tuple[Order, Given]]:
    """The next that is due, once what each has written is on the disk, all at once."""

    def told(error: OSError | None) -> None:
        if error is not None:
            raise error

    errors = settle_all([written for _, written in due])
    works = [partial(told, error) for error in errors]
    return [
        (order, _given(partial(answered, order, work)))
        for (order, _), work in zip(due, works, strict=True)
    ]


def _after(
    due: Sequence[tuple[Order, Training]], trainer: LocalTrainer
) -> list[tuple[Order, Given]]:
    """The next that is due, once all have trained, those that are alike together."""
    alike: dict[Hashable, list[Training]] = {}
    for _, training in due:
        alike.setdefault(_kind(training), []).append(training)
    trained: dict[ClientId, Trained] = {}
    for group in alike.values():
        trained |= _trained(group, trainer)
    return [
        (order, _given(partial(answered, order, partial(_end, training, trained, trainer))))
        for order, training in due
    ]


def _end(training: Training, trained: Mapping[ClientId, Trained], trainer: LocalTrainer) -> Trained:
    """What came of it together, or comes of it alone."""
    return trained.get(training.task.client) or alone(training, trainer)


def _trained(trainings: Sequence[Training], trainer: LocalTrainer) -> dict[ClientId, Trained]:
    """What came of training together; nothing for who must train alone."""
    if len(trainings) == 1:
        return {}
    try:
        ends = train_together(trainings, trainer)
    except Exception as error:
        _LOG.warning(
            "a crowd of %d clients could not be trained together (%s); each trains by itself",
            len(trainings),
            type(error).__name__,
        )
        return {}
    return {t.task.client: end for t, end in zip(trainings, ends, strict=True)}


def _kind(training: Training) -> Hashable:
    """What clients of one crowd have in common."""
    task, client = training.task, training.client
    if not joinable(client.train):
        return task.client
    plan = repr(task.plan.outline())
    fold = tuple((site, id(matrix)) for site, matrix in task.folded.items())
    rounded = client.privacy.grid > 0.0
    return type(client.train), plan, task.rank, task.steps, task.learning_rates, fold, rounded
