"""Responder: the clients' end of a courier. One order in, one answer out."""

from __future__ import annotations

from collections.abc import Mapping

from silotune.core import (
    ClientId,
    ClientTask,
    StateNotHeld,
    decode_task,
    encode_result,
    state_digest,
)
from silotune.engine import Client, LocalTrainer, client_round, score_at_home

from .frames import RESULT, SCORE, WHOLE


class Responder:
    """Answers orders for some clients, and keeps the state that the next orders lean on.

    Args:
        trainer: the model, shared by all of them.
        clients: by name.
    """

    def __init__(self, trainer: LocalTrainer, clients: Mapping[ClientId, Client]) -> None:
        self._trainer, self._clients = trainer, clients
        self._held: dict[str, ClientTask] = {}

    def answer(self, order: bytes) -> bytes:
        """What goes back.

        Raises:
            CorruptPayload: if the order is torn or foreign.
            ValueError: if it is for a client that is not here; or, without privacy, if the
                client's work failed, as OSError and RuntimeError.
        """
        kind, blob = order[:1], order[1:]
        try:
            task = decode_task(blob, self._held.get)
        except StateNotHeld:
            return WHOLE
        self._keep(task)
        if task.client not in self._clients:
            raise ValueError("a task is for a client that is not here")
        act = score_at_home if kind == SCORE else client_round
        return RESULT + encode_result(act(task, self._trainer, self._clients[task.client]))

    def _keep(self, task: ClientTask) -> None:
        """Remember this state beside that of the round before, of each rank."""
        near = (task.run, task.round - 1), (task.run, task.round)
        self._held = {d: t for d, t in self._held.items() if (t.run, t.round) in near}
        self._held[state_digest(task)] = task
