"""What a client has been asked in a run: rounds only go on, and nothing may be asked for ever.

    <client's folder>/orders/<run>.json    what was agreed; the newest round that was to be trained,
                                           and scored, and how often

It is on the disk before work begins, so that an order which fails, or is cut short, counts too.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from silotune.core import ClientTask
from silotune.core.durable import Writing, settled
from silotune.core.files import build, in_words, json_text, read_json, writing

from .client_agreement import ClientAgreement, NotAgreedError

MOST_ORDERS = 20
"""Times that a round is trained (or sent again), and scored: more than crashes need."""

Work = Literal["trained", "scored"]


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What one run has asked.

    Attributes:
        agreement: digest of what was agreed.
        trained: the newest round that was to be trained, and how often.
        scored: the newest round whose state was to be scored, and how often.
    """

    agreement: str
    trained: tuple[int, int] = (0, 0)
    scored: tuple[int, int] = (0, 0)


def admitting(
    home: Path, agreement: ClientAgreement, task: ClientTask, work: Work
) -> Writing[None]:
    """Count an order, before anything is done for it.

    Args:
        home: the client's folder.
        agreement: of its run; the task has been held against it.
        task: the order.
        work: what is asked.

    Raises:
        NotAgreedError: if the run was agreed on otherwise, the round is over, or it was asked for
            too often.
        RecordError: if it cannot be written down; then nothing may be done.
    """
    path, orders = _kept(home, agreement)
    if orders.agreement != agreement.digest:
        raise NotAgreedError("task: the run is not the one that was agreed on at its beginning")
    newest, times = orders.trained if work == "trained" else orders.scored
    if task.round < newest:
        raise NotAgreedError("task: round is one that is over")
    times = times + 1 if task.round == newest else 1
    if times > MOST_ORDERS:
        raise NotAgreedError(f"task: the round has been {work} {MOST_ORDERS} times")
    now = task.round, times
    orders = replace(orders, trained=now) if work == "trained" else replace(orders, scored=now)
    yield from _written(path, orders)


def close(home: Path, agreement: ClientAgreement, rounds: int) -> None:
    """Let nothing be asked any more of which a result was made.

    An order may be on its way for longer than its run, and what it costs would be in no
    certificate. A run that ended early may still go on from its result.

    Args:
        home: the client's folder.
        agreement: of its run.
        rounds: that are behind the result.

    Raises:
        RecordError: if it cannot be written down.
    """
    path, orders = _kept(home, agreement)
    if orders.trained[0] < rounds:
        orders = replace(orders, trained=(rounds, 0))
    if orders.scored[0] <= rounds:
        orders = replace(orders, scored=(rounds + 1, 0))
    settled(_written(path, orders))


def _kept(home: Path, agreement: ClientAgreement) -> tuple[Path, Orders]:
    path = home / "orders" / f"{agreement.run}.json"
    if not path.exists():
        return path, Orders(agreement=agreement.digest)
    return path, build(Orders, read_json(path), str(path))


def _written(path: Path, orders: Orders) -> Writing[None]:
    with in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    yield from writing(path, json_text(vars(orders)).encode())
