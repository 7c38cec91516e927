"""Responder: the clients' end of a courier. One order in, one answer out."""

from __future__ import annotations

from collections.abc import Mapping

from silotune.core import (
    ClientId,
    ClientTask,
    CorruptPayload,
    StateNotHeld,
    decode_task,
    encode_result,
    state_digest,
)
from silotune.engine import Client, LocalTrainer, client_round, score_at_home

from .messages import RESULT, SCORE, TRAIN, WHOLE, message, opened, with_lines


class Responder:
    """Answers orders for some clients, and keeps the state that the next orders lean on.

    Args:
        trainer: the model, shared by all of them.
        clients: by name.

    Attributes:
        trainer: the same.
    """

    def __init__(self, trainer: LocalTrainer, clients: Mapping[ClientId, Client]) -> None:
        self.trainer, self._clients = trainer, clients
        self._held: dict[str, ClientTask] = {}

    def answer(self, order: bytes) -> bytes:
        """What goes back.

        Raises:
            CorruptPayload: if the order is torn or foreign.
            SiloStoreError: if the client's ledger is not the one that the order knows.
            ValueError: if it is for a client that is not here; or, without privacy, if the
                client's work failed, as OSError and RuntimeError.
        """
        asked = opened(order)
        if asked is None or asked.kind not in (TRAIN, SCORE):
            raise CorruptPayload("an order is torn, or of a kind that is not known here")
        try:
            task = decode_task(asked.body, self._held.get)
        except StateNotHeld:
            return message(WHOLE)
        if task.client not in self._clients:
            raise ValueError("a task is for a client that is not here")
        client = self._clients[task.client]
        act = score_at_home if asked.kind == SCORE else client_round
        update = act(task, self.trainer, client)
        if not update.refusal:  # or whoever asks for what was not agreed could fill the memory
            self._keep(task)
        result = encode_result(update)
        if "known" not in asked.head:
            return message(RESULT, {}, result)
        lines = client.charges_since(asked.head["known"], asked.head.get("digest"))
        return message(RESULT, *with_lines(lines, result))

    def _keep(self, task: ClientTask) -> None:
        """Remember this state beside that of the round before, of each rank."""
        near = (task.run, task.round - 1), (task.run, task.round)
        self._held = {d: t for d, t in self._held.items() if (t.run, t.round) in near}
        self._held[state_digest(task)] = task
