"""A crowd's rounds: every client's own, as ``client`` has them, but that training is shared.

What is refused, charged, noised and sent is every client's own business; where its turn comes to be
trained it waits for the others. If training together fails, each is trained by itself, so that an
error is told by the client whose it is and by no other.
"""

from __future__ import annotations

import logging
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial

from silotune.core import ClientId, ClientTask, ClientUpdate, Joinable

from .client import Order, alone, client_order, finished
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
        alike: dict[Hashable, list[tuple[Order, Training]]] = {}
        for task in tasks:
            order = stack.enter_context(closing(client_order(task, trainer, clients[task.client])))
            try:
                training = next(order)
            except StopIteration as done:
                yield done.value
            else:
                alike.setdefault(_kind(training), []).append((order, training))
        for group in alike.values():
            trained = _trained([training for _, training in group], trainer)
            for order, training in group:
                yield finished(order, partial(_end, training, trained, trainer))


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
    if not isinstance(client.train, Joinable):
        return task.client
    plan = repr(task.plan.outline())
    fold = tuple((site, id(matrix)) for site, matrix in task.folded.items())
    rounded = client.privacy.grid > 0.0
    return type(client.train), plan, task.rank, task.steps, task.learning_rates, fold, rounded
