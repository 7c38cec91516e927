"""The server's accounts, where it is the one that hides the clients.

Every state that it releases is paid for by every client alike. The charge and the state are on
its disk before anybody sees the state; a crash between them and the checkpoint costs nothing, and
a round that has to be trained again before that costs nothing either, as nothing was told of it.
A round of correlated noise that was charged is never trained again: its state is taken, or the run
ends.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from silotune.core import ClientId, GlobalState
from silotune.privacy import (
    CorrelatedCharge,
    LedgerEntry,
    NoiseState,
    PrivacyBudget,
    SiloStore,
    SiloStoreError,
)

from .checkpoint import decode, encode, everything
from .experiment import Experiment
from .participants import Server
from .server import QuorumError

EVERY_CLIENT = "every client"
"""Whose charges the server's ledger holds: they are the same for all."""


def charged(
    experiment: Experiment,
    state: GlobalState,
    server: Server,
    train: Callable[[NoiseState | None], GlobalState],
) -> GlobalState:
    """The next state, charged for; the one that was released already, if there is one.

    Args:
        experiment: its central mechanism knows the price.
        state: before the round.
        server: keeps the ledger.
        train: gives the next state, hiding every client, from what the server remembers of
            correlated noise, if it is that.

    Raises:
        QuorumError: if the budget is spent; nothing was trained.
        SiloStoreError: if the ledger has lost charges, or another process uses it; under correlated
            noise also if a state that was charged is lost, or the clients are others.
    """
    run, fingerprint = experiment.run, everything(state).digest()
    with server.store() as store:
        released = store.sealed(run, state.round, fingerprint)
        if released is None:
            entry = _entry(experiment, state, store)
            correlated = isinstance(entry.charge, CorrelatedCharge)
            if correlated:
                _check_stream(entry, experiment.clients, store)
            _check_budget(server.budget, entry, store)
            released = encode(train(store.past(run) if correlated else None), run, "")
            store.release(run, state.round, fingerprint, released, entry)
    return decode(released)[0]


def _entry(experiment: Experiment, state: GlobalState, store: SiloStore) -> LedgerEntry:
    """The price of the next attempt at a round."""
    charge = experiment.central.charge()
    assert charge is not None, "whoever hides the clients has a price"
    return LedgerEntry(
        run=experiment.run,
        silo=EVERY_CLIENT,
        round=state.round,
        attempt=store.attempts(experiment.run, state.round),
        charge=charge,
        max_grad_norm=experiment.central.clipping_norm(state.memory),
        time=datetime.now(UTC).date().isoformat(),  # how long a round took tells how many took part
    )


def _check_stream(entry: LedgerEntry, clients: Sequence[ClientId], store: SiloStore) -> None:
    """Each row of a stream hides one state, and each client keeps its turn."""
    if not store.may_train(entry.run, entry.round):
        raise SiloStoreError(
            f"the state released after round {entry.round + 1} is lost, and correlated noise may "
            "not be drawn for that round again; begin a new run"
        )
    if not store.still_holds(entry.run, hashlib.sha256(json.dumps(clients).encode()).hexdigest()):
        raise SiloStoreError(
            "partition: the clients are not those that this run began with, and correlated noise "
            "needs the same ones in every round; bring them back, or begin a new run"
        )


def _check_budget(budget: PrivacyBudget | None, entry: LedgerEntry, store: SiloStore) -> None:
    if budget is None:
        return
    if not store.affords(entry.run, entry.charge, budget):
        raise QuorumError(
            f"round {entry.round} is not trained: the budget of epsilon {budget.epsilon:g} of "
            f"{EVERY_CLIENT} is spent"
        )
