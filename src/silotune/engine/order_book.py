"""What a client has been asked in a run: rounds only go on, and nothing may be asked for ever.

    <client's folder>/orders/<run>.json    what was agreed, the newest round, and how often it was
                                           to be trained, and scored

It is on the disk before work begins, so that an order which fails, or is cut short, counts too.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from silotune.core import ClientTask
from silotune.core.files import build, in_words, read_json, write_json

from .client_agreement import ClientAgreement, NotAgreedError

MOST_ORDERS = 20
"""Times that a round is trained (or sent again), and scored: more than crashes need."""

Work = Literal["trained", "scored"]


@dataclass(frozen=True, kw_only=True)
class Orders:
    """What one run has asked.

    Attributes:
        agreement: digest of what was agreed.
        round: the newest.
        trained: how often that round was to be trained.
        scored: how often it was to be scored.
    """

    agreement: str
    round: int = 0
    trained: int = 0
    scored: int = 0


def admit(home: Path, agreement: ClientAgreement, task: ClientTask, work: Work) -> None:
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
    path = home / "orders" / f"{agreement.run}.json"
    orders = Orders(agreement=agreement.digest)
    if path.exists():
        orders = build(Orders, read_json(path))
    if orders.agreement != agreement.digest:
        raise NotAgreedError("task: the run is not the one that was agreed on at its beginning")
    if task.round < orders.round:
        raise NotAgreedError("task: round is one that is over")
    if task.round > orders.round:
        orders = Orders(agreement=orders.agreement, round=task.round)
    orders = replace(orders, **{work: getattr(orders, work) + 1})
    if getattr(orders, work) > MOST_ORDERS:
        raise NotAgreedError(f"task: the round has been {work} {MOST_ORDERS} times")
    with in_words(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, asdict(orders))
