"""What a view says in words, in a terminal and on a page alike.

Names and reasons are of others: they are shown plain, in one line, and of a length that is read.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from silotune.certificate.guarantee import NOT_PRIVATE
from silotune.core.plain import plain
from silotune.core.units import (
    DASH,
    change_text,
    count_text,
    epsilon_text,
    human_bytes,
    human_seconds,
    metric_text,
    number_text,
)
from silotune.runs.live import Doing, Stage

from .live_view import SiteView, View

STAGE = {
    Stage.OFFER: "offering the run",
    Stage.BEGIN: "beginning",
    Stage.TRAIN: "training",
    Stage.SCORE: "scoring",
    Stage.ACCOUNT: "asking what was charged",
    Stage.FINISH: "handing over the result",
}
WORKS = {
    Stage.OFFER: "looks at the offer",
    Stage.BEGIN: "begins",
    Stage.TRAIN: "trains",
    Stage.SCORE: "scores",
    Stage.ACCOUNT: "looks up its ledger",
    Stage.FINISH: "takes the result",
}
RESTS = {Stage.OFFER: "has accepted", Stage.BEGIN: "ready", Stage.FINISH: "has the result"}
DOES = {
    Doing.UNASKED: "not reached yet",
    Doing.ASKED: "asked, no word yet",
    Doing.WAITING: "waits for approval there",
    Doing.REFUSED: "refuses",
    Doing.HIDDEN: "not told: the server hides who takes part",
}


def headline(view: View) -> str:
    """Where the run is: ``round 3 of 20, training``."""
    where = f"round {view.rounds} of {view.live.rounds}"
    return f"{where}, {STAGE[view.live.stage]}" if view.running else where


class Figure(NamedTuple):
    """What is known of all sites together.

    Attributes:
        name: of it.
        value: of it.
        more: beside it; may be empty.
        share: of a whole that is spent or done; None where there is none.
    """

    name: str
    value: str
    more: str = ""
    share: float | None = None


def figures(view: View) -> Iterator[Figure]:
    """Progress, the metric to look at first, epsilon and bytes, as far as they are known."""
    live = view.live
    stage = STAGE[live.stage] if view.running else ""
    done = f"{view.rounds} of {live.rounds}"
    yield Figure("rounds done", done, stage, view.rounds / live.rounds)
    if view.values:
        now, first = view.values[-1][1], view.values[0][1]
        change = change_text(live.metric, first, now) if len(view.values) > 1 else ""
        start = "before training" if view.values[0][0] == 0 else "the first"
        more = f"{change} since {start}" if change else ""
        yield Figure(plain(live.metric), metric_text(live.metric, now), more)
    if view.epsilon is not None:
        name = "ε spent, largest" if live.unit == "example" else "ε spent"
        more = f"δ = {number_text(live.delta)}" if view.private else NOT_PRIVATE
        yield Figure(name, epsilon_of(view, view.epsilon), more, share_of(view, view.epsilon))
    down = f"{human_bytes(view.bytes_down)} down"
    yield Figure("bytes", f"{human_bytes(view.bytes_up)} up", down)


def epsilon_of(view: View, spent: float | None) -> str:
    """``1.24 of 6``; a dash where nothing is known."""
    if spent is None:
        return DASH
    budget = view.live.budget
    return epsilon_text(spent) + (f" of {number_text(budget)}" if budget is not None else "")


def share_of(view: View, spent: float | None) -> float | None:
    """The spent part of a budget, at most 1; None where there is none, or nothing is known."""
    budget = view.live.budget
    if spent is None or not budget:
        return None
    return min(1.0, spent / budget) if math.isfinite(spent) else 1.0


def doing(site: SiteView) -> str:
    """What a site does, by the last word of either side: ``trains``."""
    live = site.live
    if live.doing == Doing.REFUSED and live.reason:
        return f"refuses: {plain(live.reason)}"
    said = WORKS if live.doing == Doing.WORKING else RESTS
    return DOES.get(live.doing) or said.get(Stage(live.order), "idle")


def since(view: View, site: SiteView) -> str:
    """For how long it does: ``since 14:02:05 (3 min 05 s)``; empty where that is not told."""
    live = site.live
    if not live.since or live.doing == Doing.HIDDEN:
        return ""
    ago = f" ({_ago(view, live.since)})" if view.running else ""
    return f"since {clock(view, live.since)}{ago}"


def line(view: View, site: SiteView) -> str:
    """Whether its line is up, while the run goes on and where there is one."""
    if not view.running or site.live.connected is None:
        return ""
    return "connected" if site.live.connected else "not connected"


def heard(view: View, site: SiteView) -> str:
    """When a site said anything last."""
    if not site.live.heard:
        return DASH
    return f"{_ago(view, site.live.heard)} ago" if view.running else clock(view, site.live.heard)


def taken(view: View, site: SiteView) -> str:
    """Rounds with its update in the mean: ``3 of 4``."""
    return DASH if site.rounds is None else f"{site.rounds} of {view.rounds}"


def records(site: SiteView) -> str:
    """The number that a site declares."""
    return "" if site.num_examples is None else count_text(site.num_examples, "record")


def clock(view: View, moment: str) -> str:
    """The local time; with its day if that is another one than the view's."""
    then, now = _local(moment), _local(view.at)
    return then.strftime("%H:%M:%S" if then.date() == now.date() else "%Y-%m-%d %H:%M")


def _ago(view: View, moment: str) -> str:
    seconds = max(0.0, (_local(view.at) - _local(moment)).total_seconds())
    return human_seconds(seconds) if seconds >= 10 else f"{seconds:.0f} s"


def _local(moment: str) -> datetime:
    return datetime.fromisoformat(moment).astimezone()
