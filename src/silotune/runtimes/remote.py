"""Remote: clients at the other end of a courier."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from silotune.core import (
    ClientId,
    ClientTask,
    ClientUpdate,
    CorruptPayload,
    decode_result,
    encode_task,
    state_digest,
)

from .courier import Courier
from .frames import RESULT, SCORE, TRAIN, WHOLE


class Remote:
    """The runtime over any courier.

    A client that answered in the round before is sent what has changed since. If it has lost
    the rest, it says so and is sent all of it.

    Args:
        courier: the way to the clients.
        clients: who can be asked.
        deadline: seconds that a round may take; who has not answered then is missing.
    """

    def __init__(self, courier: Courier, clients: Sequence[ClientId], deadline: float) -> None:
        self._courier, self._clients, self._deadline = courier, sorted(clients), deadline
        self._answered: dict[ClientId, _State] = {}

    def clients(self) -> Sequence[ClientId]:
        """All of them, by name."""
        return self._clients

    def train(self, tasks: Sequence[ClientTask]) -> Iterator[ClientUpdate]:
        """Results as they come."""
        return self._results(TRAIN, tasks)

    def evaluate(self, tasks: Sequence[ClientTask]) -> Sequence[ClientUpdate]:
        """Each silo scores at home; a noisy score comes back, or the word that it is done."""
        return list(self._results(SCORE, tasks))

    def _results(self, kind: bytes, tasks: Sequence[ClientTask]) -> Iterator[ClientUpdate]:
        end = time.monotonic() + self._deadline
        asked = {task.client: task for task in tasks}
        states = _states(tasks)

        def in_parts(client: ClientId) -> bytes:
            return kind + encode_task(asked[client], leaning_on=self._held(asked[client]))

        def whole(client: ClientId) -> bytes:
            return kind + encode_task(asked[client])

        orders, encode = list(asked), in_parts
        while orders:
            again: list[ClientId] = []
            left = max(0.0, end - time.monotonic())
            for client, answer in self._courier.exchange(_Orders(orders, encode), left):
                if answer[:1] == WHOLE and encode is in_parts:
                    again.append(client)
                elif (result := _opened(client, answer)) is not None:
                    self._answered[client] = states[asked[client].rank]
                    yield result
            orders, encode = again, whole

    def _held(self, task: ClientTask) -> str:
        """Digest of the state that the client had in the round before; empty if it had none."""
        known = self._answered.get(task.client)
        before = task.run, task.round - 1
        return known.digest if known is not None and known[:2] == before else ""


class _State(NamedTuple):
    """What a client was sent."""

    run: str
    round: int
    digest: str


def _states(tasks: Sequence[ClientTask]) -> dict[int | None, _State]:
    """By rank, since all tasks of a round and rank bring the same tensors."""
    of_rank = {task.rank: task for task in tasks}
    return {rank: _State(t.run, t.round, state_digest(t)) for rank, t in of_rank.items()}


@dataclass(frozen=True)
class _Orders(Mapping[ClientId, bytes]):
    """Orders that are made one at a time, since all at once may be more than memory holds."""

    clients: Sequence[ClientId]
    encode: Callable[[ClientId], bytes]

    def __getitem__(self, client: ClientId) -> bytes:
        return self.encode(client)

    def __iter__(self) -> Iterator[ClientId]:
        return iter(self.clients)

    def __len__(self) -> int:
        return len(self.clients)


def _opened(client: ClientId, answer: bytes) -> ClientUpdate | None:
    """A result; None if it is torn, or speaks for another client: as good as lost."""
    if answer[:1] != RESULT:
        return None
    try:
        result = decode_result(answer[1:])
    except CorruptPayload:
        return None
    return result if result.client == client else None
