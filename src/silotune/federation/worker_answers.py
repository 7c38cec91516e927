"""A worker's end of a run: it opens what the coordinator opens, at the same time, and answers.

It calibrates nothing: it is handed what the coordinator has certified, and asks for that when all
else is open.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from itertools import groupby
from pathlib import Path

from silotune.core import Answers, joined
from silotune.engine import answers_to
from silotune.engine.batches import cost, microbatches, pass_tokens
from silotune.runs.folder import RunFolder
from silotune.runtimes.responder import Responder

from .baselines import train_alone
from .built import BuiltFederation, build_clients, build_federation
from .lifetimes import open_accounts
from .remembering import remembering
from .scoring import Ask, records_at
from .worker_orders import (
    ALONE,
    MEASURE,
    Share,
    alone_in,
    answers_frame,
    measure_in,
    metrics_frame,
    opening_in,
    planned_in,
)
from .workers import WORKERS_LOG


def open_worker(folder: RunFolder, take: Callable[[], bytes]) -> Callable[[bytes], bytes]:
    """Open a run's federation; gives what answers orders.

    Args:
        folder: of the run; it need not be there before what was calibrated is handed over.
        take: gives what this worker is told, one frame a call.

    Raises:
        ValueError: in words; but only when the coordinator has opened the same, since otherwise it
            says so itself.
    """
    told = opening_in(take())
    planned = cache(lambda: planned_in(take()))
    try:
        built = build_federation(told.federation, told.began, planned=planned)
    except Exception:
        planned()
        raise
    if built.terms.private:  # what it says from here on may be of records, and stays with them
        log = os.open(folder.path / "sites" / WORKERS_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(log, 2)
        os.dup2(log, 1)
    built = remembering(built, folder.site, folder.state.parent)
    clients = build_clients(built, folder.site, told.run, open_accounts(built))
    responder = Responder(built.agreement.model.trainer, clients)

    def answer(order: bytes) -> bytes:
        match order[:1]:
            case kind if kind == MEASURE:
                return answers_frame(share_of(built, *measure_in(order)))
            case kind if kind == ALONE:
                silo, place = alone_in(order)
                *_, last = train_alone(built, silo, Path(place))
                return metrics_frame(last.metrics)
            case _:
                return responder.answer(order)

    return answer


def share_of(built: BuiltFederation, asks: Sequence[Ask], share: Share) -> list[Answers]:
    """A share of the answers to each ask: all shares, one after another, are all answers.

    What goes through the model at once does not depend on the number of shares.

    Args:
        built: whose model and records.
        asks: of the whole work.
        share: of it, by its cost.
    """
    trainer = built.agreement.model.trainer
    found: list[list[Answers]] = [[] for _ in asks]
    mine = groupby(_mine(built, asks, share), key=lambda piece: piece[:2])
    for (ask, model), pieces in mine:
        numbers, examples = asks[ask].models[model], records_at(built.data, asks[ask].records)
        parts = [part for _, _, part in pieces]
        found[ask].append(
            answers_to(
                trainer.adapted,
                trainer.objective,
                numbers.factors,
                examples,
                parts,
                numbers.folded,
            )
        )
    return list(map(joined, found))


def _mine(
    built: BuiltFederation, asks: Sequence[Ask], share: Share
) -> Iterator[tuple[int, int, Sequence[int]]]:
    """Ask, model of it, and records, of the parts that lie in a share."""
    trainer = built.agreement.model.trainer
    each = pass_tokens(trainer.adapted)
    pieces, costs = [], []
    for i, ask in enumerate(asks):
        lengths = records_at(built.data, ask.records).lengths
        parts = list(microbatches(range(len(lengths)), lengths, trainer.eval_batch, each))
        pieces += [(i, model, part) for model in range(len(ask.models)) for part in parts]
        costs += [cost(part, lengths, each) for part in parts] * len(ask.models)
    before, total = 0, sum(costs)
    for piece, own in zip(pieces, costs, strict=True):
        if (2 * before + own) * share.of // (2 * total) == share.number:
            yield piece
        before += own
