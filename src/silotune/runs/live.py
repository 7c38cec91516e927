"""Live: what a coordinator knows at this moment of a run over sites.

The process that runs replaces ``live.json`` with every event; others read it. It holds what sites
have said, when they said it, and nothing that they have not. Nothing of a run leans on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from silotune.core.files import DamagedError, build, read_json, write_passing


class Doing(StrEnum):
    """How it stands between a coordinator and a site, by the last word of either.

    Attributes:
        UNASKED: no order of this process was handed over yet.
        ASKED: it was given an order, and has not said anything since.
        WAITING: it says that nobody there has approved the run yet.
        WORKING: it says that it works on its order.
        IDLE: it has answered.
        REFUSED: it has refused.
        HIDDEN: who is asked is a secret of the server.
    """

    UNASKED = "unasked"
    ASKED = "asked"
    WAITING = "waiting"
    WORKING = "working"
    IDLE = "idle"
    REFUSED = "refused"
    HIDDEN = "hidden"


class Stage(StrEnum):
    """What orders are about."""

    OFFER = "offer"
    BEGIN = "begin"
    TRAIN = "train"
    SCORE = "score"
    ACCOUNT = "account"
    FINISH = "finish"


@dataclass(frozen=True, kw_only=True)
class SiteLive:
    """One site. Times are the coordinator's, in ISO 8601, whole seconds.

    Attributes:
        doing: what it does.
        order: what the last order was about; empty before the first.
        since: when this began; empty if nothing has.
        heard: when it last said anything; empty if it has not.
        reason: why it refused, in words of a fixed list; empty if it has not.
        connected: whether its line is up; None where a transport has none.
    """

    doing: Doing = Doing.UNASKED
    order: str = ""
    since: str = ""
    heard: str = ""
    reason: str = ""
    connected: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Live:
    """``live.json``.

    Attributes:
        run: the identity of the run.
        title: of the run, for people.
        coordinator: who asks.
        began: when the run did, in ISO 8601.
        rounds: planned.
        metric: the one to look at first.
        unit: of privacy: ``example``, ``client`` or ``none``.
        privacy: the same in words, or ``NOT PRIVATE`` and why.
        budget: epsilon that may be spent; None if that is not limited.
        delta: that epsilon is of; None without privacy.
        stage: what the last orders were about.
        sites: by name.
    """

    run: str
    title: str
    coordinator: str
    began: str
    rounds: int
    metric: str
    unit: str
    privacy: str
    budget: float | None = None
    delta: float | None = None
    stage: Stage = Stage.OFFER
    sites: Mapping[str, SiteLive] = field(default_factory=dict)

    def with_site(self, name: str, site: SiteLive) -> Live:
        """The same, but for one site."""
        return replace(self, sites={**self.sites, name: site})


def moment() -> str:
    """This one, in ISO 8601 and whole seconds."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write_live(path: Path, live: Live) -> None:
    """Replace ``live.json``.

    Raises:
        OSError: if it cannot be written.
    """
    write_passing(path, asdict(live))


def read_live(path: Path) -> Live:
    """What ``write_live`` wrote.

    Raises:
        DamagedError: if it is missing or damaged.
        RecordError: if it cannot be read, or is of a newer version.
    """
    data = read_json(path)
    try:
        sites = {name: _site(site, path) for name, site in data["sites"].items()}
        data |= {"sites": sites, "stage": Stage(data["stage"])}
    except (KeyError, ValueError, AttributeError) as error:
        raise DamagedError(f"{path}: damaged, it does not say what sites do") from error
    return build(Live, data, str(path))


def _site(data: Mapping[str, Any], path: Path) -> SiteLive:
    return build(SiteLive, {**data, "doing": Doing(data["doing"])}, str(path))
