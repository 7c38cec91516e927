"""View: a run over sites as it stands, for whoever looks on. Read from its folder alone.

What is in it was declared or released by a site, or is a word of a fixed list. The run may go on,
be over, or have been killed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from silotune.certificate.guarantee import NOT_PRIVATE
from silotune.core.files import RecordError
from silotune.core.locks import is_locked
from silotune.runs.facts import RunFacts, read_facts
from silotune.runs.folder import RoundRecord, RunFolder, rounds_in
from silotune.runs.live import Live, SiteLive, moment, read_live
from silotune.runs.standing import standing

RUNNING = "running"
"""The status of a run that a process has."""

NOT_BEGUN = "not begun; the offer stays, and --resume goes on with it"
"""The status of a run that nobody offers any more, and that not all sites have accepted."""

_MOST_ABSENCES = 50
"""That are listed, the last ones."""


@dataclass(frozen=True, kw_only=True)
class SiteView:
    """One site of a view.

    Attributes:
        name: of the site.
        live: what it does now.
        num_examples: that it declares; None before it has.
        epsilon: spent so far; None without privacy, and where the server hides who takes part.
        rounds: finished ones with its update in the mean; None where that is hidden.
        missing: why the last finished round is without it; empty if it is not.
    """

    name: str
    live: SiteLive
    num_examples: int | None = None
    epsilon: float | None = None
    rounds: int | None = 0
    missing: str = ""


@dataclass(frozen=True, kw_only=True)
class Absence:
    """An update that a round's mean is without, and why. Rounds count from 1."""

    round: int
    site: str
    why: str


@dataclass(frozen=True, kw_only=True)
class View:
    """A run over sites as it stands.

    Attributes:
        at: when that was looked up, in ISO 8601.
        live: what the coordinator knows.
        status: ``running``, ``finished``, or how it ended.
        rounds: finished ones.
        bytes_up: from sites, in all of them.
        bytes_down: to sites.
        epsilon: the largest that was spent; None without privacy.
        values: of the metric to look at first, by finished rounds; 0 is before training.
        sites: by name.
        absences: the last ones, oldest first.
    """

    at: str
    live: Live
    status: str
    rounds: int
    bytes_up: int
    bytes_down: int
    epsilon: float | None
    values: Sequence[tuple[int, float]]
    sites: Sequence[SiteView]
    absences: Sequence[Absence]

    @property
    def running(self) -> bool:
        """Whether a process has the run."""
        return self.status == RUNNING

    @property
    def private(self) -> bool:
        """Whether somebody is hidden, so that an epsilon means something."""
        return not self.live.privacy.startswith(NOT_PRIVATE)

    def to_json(self) -> dict[str, Any]:
        """One flat object; numbers that are not finite become null when it is written."""
        live = {k: v for k, v in vars(self.live).items() if k not in ("sites", "rounds")}
        sites = [{**vars(site), **asdict(site.live)} for site in self.sites]
        for site in sites:
            del site["live"]
        return {
            "at": self.at,
            **live,
            "status": self.status,
            "round": self.rounds,
            "rounds": self.live.rounds,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "epsilon": self.epsilon,
            "values": [list(value) for value in self.values],
            "sites": sites,
            "absences": [asdict(absence) for absence in self.absences],
        }


def view_of(folder: RunFolder) -> View:
    """How a run stands.

    Raises:
        RecordError: if it is no run over sites, or a file of it is damaged.
    """
    if not folder.live.is_file():
        raise RecordError(
            f"{folder.path}: no run over sites is here; name the folder of one (its output_dir)"
        )
    going = is_locked(folder.lock)  # asked first, so that a run that ends meanwhile has ended
    live = read_live(folder.live)
    facts = read_facts(folder) if folder.run.is_file() else None
    rounds = [] if facts is None else rounds_in(folder.metrics)
    done = [record for record in rounds if record.round >= 0]
    last = done[-1].epsilon if done else {}
    return View(
        at=moment(),
        live=live,
        status=_status(folder, facts, going=going),
        rounds=len(done),
        bytes_up=sum(record.bytes_up for record in done),
        bytes_down=sum(record.bytes_down for record in done),
        epsilon=max(last.values(), default=None if live.delta is None else 0.0),
        values=_values(rounds, live.metric),
        sites=_sites(live, facts, done),
        absences=list(_absences(done))[-_MOST_ABSENCES:],
    )


def _status(folder: RunFolder, facts: RunFacts | None, *, going: bool) -> str:
    if going:
        return RUNNING
    return NOT_BEGUN if facts is None else standing(folder, facts)


def _sites(live: Live, facts: RunFacts | None, done: Sequence[RoundRecord]) -> list[SiteView]:
    sizes: Mapping[str, Mapping[str, int]] = facts.silos if facts else {}
    last = done[-1] if done else None
    spent = last.epsilon if last else {}
    return [
        SiteView(
            name=name,
            live=site,
            num_examples=sizes[name].get("num_examples") if name in sizes else None,
            epsilon=spent.get(name),
            rounds=None
            if live.unit == "client"
            else sum(name in record.clients for record in done),
            missing=last.missing.get(name, "") if last else "",
        )
        for name, site in live.sites.items()
    ]


def _values(rounds: Sequence[RoundRecord], metric: str) -> list[tuple[int, float]]:
    return [
        (record.round + 1, record.metrics[metric])
        for record in rounds
        if math.isfinite(record.metrics.get(metric, math.nan))
    ]


def _absences(done: Sequence[RoundRecord]) -> Iterator[Absence]:
    for record in done:
        for site, why in record.missing.items():
            yield Absence(round=record.round + 1, site=site, why=why)
