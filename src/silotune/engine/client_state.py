"""What a client begins a round from: what it is sent, what seeds draw, what is its own."""

from __future__ import annotations

from silotune.core import ClientTask, Factors, tensors_of, unbounded

from .own_start import own_start
from .participants import Client, LocalTrainer
from .personalization import kept


def received(task: ClientTask, trainer: LocalTrainer) -> Factors:
    """The task's whole state: what was sent and what seeds decide.

    Raises:
        ValueError: if the drawn tensors are not those the server drew, or any are out of range.
    """
    whole, wild = task.factors, unbounded(task.factors)
    for seeded in task.seeded:
        drawn = trainer.draw(seeded.seed).cut(task.rank)
        if drawn.digest(seeded.keys) != seeded.digest:
            raise ValueError(
                "the tensors drawn from the seed differ from the server's (SHA-256): "
                "the models or the versions of torch are not the same"
            )
        whole = whole.updated({key: drawn[key] for key in seeded.keys})
        wild = wild or unbounded(drawn, seeded.keys)
    wild = wild or unbounded(tensors_of(task.folded))
    if wild is not None:
        raise ValueError(f"the server sent numbers in {wild} that are not finite, or too large")
    return whole


def start_of(task: ClientTask, trainer: LocalTrainer, client: Client) -> Factors:
    """The task's state, with the client's own tensors and draws in place of the server's."""
    state = received(task, trainer)
    state = state.updated(own_start(task, trainer.draw))
    if not task.plan.personal(state):
        return state
    return state.updated(kept(client.folder, task))
