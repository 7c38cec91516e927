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
from silotune.engine.client_errors import OF_A_SILO
from silotune.engine.client_releases import meters_due
from silotune.privacy import SiloStoreError
from silotune.privacy.ledger.entry import METRIC, UPDATE
from silotune.privacy.ledger.heard import HeardLedger
from silotune.runs.unheard import Order, Unheard

from .courier import Courier
from .messages import (
    REFUSED,
    RESULT,
    SCORE,
    TRAIN,
    WHOLE,
    Message,
    lines_of,
    message,
    opened,
    words,
)

NOT_CHARGED = "it did not tell what it charged for its update"
"""Why an update is not used: no certificate could count it."""

OTHER_LEDGER = "the charges that it tells do not go on from those that it told before"
"""Why an update is not used: whoever takes back a charge is not believed."""

OTHER_NUMBERS = "its numbers are not those in its ledger"
"""Why an update is not used: a number that was released is in the line that charges for it."""


class Stragglers(NamedTuple):
    """How long a round waits for the last ones.

    Attributes:
        quorum: good answers that a round needs.
        wait: seconds that are waited for others, once there are so many.
    """

    quorum: int
    wait: float


class Remote:
    """The runtime over any courier.

    A client that answered in the round before is sent what has changed since. If it has lost
    the rest, it says so and is sent all of it.

    Args:
        courier: the way to the clients.
        clients: who can be asked.
        deadline: seconds that a round may take; who has not answered then is missing.
        ledgers: of clients that tell what they charge; of the others somebody else knows it.
        stragglers: when to stop waiting for the last ones; None = at the deadline.
        unpaid: whether nothing that a client has told of was charged for an update.
        held_out: the declared number of held-out records, of who tells a noisy score.
        unheard: keeps which orders may have been charged for; needed with ledgers.
    """

    def __init__(
        self,
        courier: Courier,
        clients: Sequence[ClientId],
        deadline: float,
        ledgers: Mapping[str, HeardLedger] | None = None,
        stragglers: Stragglers | None = None,
        unpaid: Callable[[ClientUpdate], bool] | None = None,
        held_out: Mapping[str, int] | None = None,
        unheard: Unheard | None = None,
    ) -> None:
        self._courier, self._clients, self._deadline = courier, sorted(clients), deadline
        self._ledgers = {ClientId(name): ledger for name, ledger in (ledgers or {}).items()}
        self._stragglers, self._unpaid, self._held_out = stragglers, unpaid, held_out or {}
        self._unheard = unheard
        self._answered: dict[ClientId, _State] = {}

    def clients(self) -> Sequence[ClientId]:
        """All of them, by name."""
        return self._clients

    def join(self, client: ClientId, ledger: HeardLedger, held_out: int) -> None:
        """One more client that can be asked.

        Args:
            client: its name.
            ledger: what it tells of its charges.
            held_out: its declared number of held-out records.
        """
        self._clients = sorted([*self._clients, client])
        self._ledgers[client] = ledger
        self._held_out = {**self._held_out, client: held_out}

    def train(self, tasks: Sequence[ClientTask]) -> Iterator[ClientUpdate]:
        """Results as they come."""
        return self._results(TRAIN, tasks)

    def evaluate(self, tasks: Sequence[ClientTask]) -> Sequence[ClientUpdate]:
        """Each silo scores at home; a noisy score comes back, or the word that it is done."""
        return list(self._results(SCORE, tasks))

    def _results(self, kind: bytes, tasks: Sequence[ClientTask]) -> Iterator[ClientUpdate]:
        asked = {task.client: task for task in tasks}
        states, whole = _states(tasks), set[ClientId]()
        self._write_down(METRIC if kind == SCORE else UPDATE, asked, states)
        for task in tasks:
            if ledger := self._ledgers.get(task.client):
                ledger.asked(task.round - (kind == SCORE))

        def order(client: ClientId) -> bytes:
            task = asked[client]
            leaning_on = "" if client in whole else self._held(task)
            return message(kind, self._head(task), encode_task(task, leaning_on=leaning_on))

        waiting = sorted(asked, key=lambda client: -asked[client].steps)  # who takes longest first
        clock = _Clock(self._deadline, self._stragglers)
        while waiting:
            left: list[ClientId] = []
            heard: set[ClientId] = set()
            for client, data in self._courier.exchange(_Orders(waiting, order), clock.part()):
                answer = opened(data)
                heard.add(client)
                if answer is None or client not in asked:
                    continue
                if answer.kind == WHOLE and client not in whole:
                    whole.add(client)
                    left.append(client)
                for update in self._heard(kind, asked[client], answer, states):
                    clock.count(update)
                    yield update
            if clock.goes_on:  # whoever is silent is asked the same once more, and works on it once
                left += [client for client in waiting if client not in heard]
            waiting = left

    def _write_down(
        self,
        release: str,
        asked: Mapping[ClientId, ClientTask],
        states: Mapping[int | None, _State],
    ) -> None:
        """Before they go out: orders that somebody may charge for."""
        if self._unheard is not None:
            self._unheard.asked(
                {
                    client: Order(release, task.round, states[task.rank].digest)
                    for client, task in asked.items()
                    if release in self._ledgers[client].prices
                }
            )

    def _head(self, task: ClientTask) -> dict[str, object]:
        ledger = self._ledgers.get(task.client)
        return {"run": task.run, **known(ledger)} if ledger else {}

    def _heard(
        self, kind: bytes, task: ClientTask, answer: Message, states: Mapping[int | None, _State]
    ) -> Iterator[ClientUpdate]:
        """A result, or why there is none; nothing if the answer is torn, or speaks for another."""
        if answer.kind == REFUSED:
            yield _refused(task, words(answer.head.get("code")))
        if answer.kind != RESULT:
            return
        lines, body = lines_of(answer)
        try:
            if task.client in self._ledgers:
                self._ledgers[task.client].hear(lines)
            result = decode_result(body)
        except SiloStoreError:
            yield _refused(task, OTHER_LEDGER)
            return
        except CorruptPayload:
            return
        asked = task.client, task.run, task.round
        if (result.client, result.run, result.round) != asked:
            return
        why = self._objection(kind, task, result)
        if self._unheard is not None:
            order = Order(UPDATE, task.round, states[task.rank].digest)
            if why == NOT_CHARGED:
                self._unheard.unpaid(task.client, order)
            else:
                self._unheard.heard(task.client)
        if why:
            yield _refused(task, why)
        else:
            self._answered[task.client] = states[task.rank]
            yield result

    def _objection(self, kind: bytes, task: ClientTask, result: ClientUpdate) -> str:
        """Why a result is not used; empty if it is."""
        if result.refusal:
            return result.refusal if result.refusal in OF_A_SILO else words(None)
        if result.sealed and self._unpaid is not None and self._unpaid(result):
            return NOT_CHARGED
        if task.client in self._ledgers:
            book = self._ledgers[task.client].chain.book(task.run)
            held_out = self._held_out.get(task.client, 0)
            if result.meters != meters_due(book, task, held_out, scored=kind == SCORE):
                return OTHER_NUMBERS
        return ""

    def _held(self, task: ClientTask) -> str:
        """Digest of the state that the client had in the round before; empty if it had none."""
        known = self._answered.get(task.client)
        before = task.run, task.round - 1
        return known.digest if known is not None and known[:2] == before else ""


class _Clock:
    """How long an exchange may still take."""

    def __init__(self, deadline: float, stragglers: Stragglers | None) -> None:
        self._end = time.monotonic() + deadline
        self._stragglers, self._good = stragglers, 0

    def count(self, update: ClientUpdate) -> None:
        """A client has answered; with the last one of a quorum the others have so long left."""
        self._good += not update.refusal
        if self._stragglers is not None and self._good == self._stragglers.quorum:
            self._end = min(self._end, time.monotonic() + self._stragglers.wait)

    def part(self) -> float:
        """Seconds of the next exchange; nobody can end one that goes on."""
        left = max(0.0, self._end - time.monotonic())
        return left if self._stragglers is None else min(left, self._stragglers.wait)

    @property
    def goes_on(self) -> bool:
        """Whether another exchange is due for who is silent."""
        return self._stragglers is not None and time.monotonic() < self._end


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


def known(ledger: HeardLedger) -> dict[str, object]:
    """For the head of an order: how much of the client's ledger is known here."""
    return {"known": len(ledger.chain), "digest": ledger.chain.head}


def _refused(task: ClientTask, why: str) -> ClientUpdate:
    return ClientUpdate(run=task.run, round=task.round, client=task.client, sealed=b"", refusal=why)
