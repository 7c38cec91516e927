"""``federation status RUN``: a run over sites, once or for as long as it goes on."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live as Redrawn
from rich.table import Table
from rich.text import Text

from silotune.core.plain import plain
from silotune.core.units import DASH
from silotune.reports import live_words
from silotune.reports.live_view import View, view_of
from silotune.reports.prometheus import prometheus
from silotune.runs.folder import RunFolder

from .console import emit, speaker
from .run_over_sites import run_of

PAUSE = 1.0
"""Seconds between two looks."""


def tell_run(path: Path | None, *, follow: bool, as_json: bool, as_prometheus: bool) -> None:
    """How a run stands; with ``follow`` again whenever that changes, until nobody has the run.

    Args:
        path: of the run's folder; None = the only one here.
        follow: go on looking.
        as_json: one line of JSON for every look.
        as_prometheus: Prometheus' text instead, once.

    Raises:
        RecordError: if it is no run over sites, or a file of it is damaged.
        ValueError: if none is named, and there is not just one here.
    """
    folder = run_of(path)
    views = _views(folder) if follow else iter([view_of(folder)])
    if as_prometheus:
        print(prometheus(next(views)), end="", flush=True)
    elif as_json:
        for view in views:
            emit(view.to_json())
    else:
        _draw(views, speaker())


def _views(folder: RunFolder) -> Iterator[View]:
    """One whenever something has changed; the last is of a run that nobody has."""
    before = None
    while True:
        view = view_of(folder)
        said = {**view.to_json(), "at": ""}
        if said != before:
            yield view
        if not view.running:
            return
        before = said
        time.sleep(PAUSE)


def _draw(views: Iterator[View], console: Console) -> None:
    if not console.is_terminal:
        for view in views:
            console.print(_shown(view))
        return
    with Redrawn(console=console, auto_refresh=False) as place:
        for view in views:
            place.update(_shown(view), refresh=True)


def _shown(view: View) -> RenderableType:
    head = Text(f"{plain(view.live.title)}: {live_words.headline(view)}", style="bold")
    status = Text(f"run {plain(view.live.run)}: {plain(view.status, 500)}")
    _, *others = live_words.figures(view)  # the first is in the headline
    lines: list[RenderableType] = [head, status]
    if not view.private:
        lines.append(Text(plain(view.live.privacy, 500), style="bold"))
    for figure in others:
        more = f" ({figure.more})" if figure.more else ""
        lines.append(Text(f"{figure.name} {figure.value}{more}"))
    return Group(*lines, _table(view))


def _table(view: View) -> Table:
    """Columns that say nothing of any site are left out."""
    table = Table(box=box.SIMPLE_HEAD, header_style="dim")
    rows = [
        {
            "site": plain(site.name),
            "does": _lines(live_words.doing(site), live_words.since(view, site)),
            "heard": _lines(live_words.heard(view, site), live_words.line(view, site)),
            "in the mean": live_words.taken(view, site),
            "ε spent": live_words.epsilon_of(view, site.epsilon),
            "not in the last round": plain(site.missing),
        }
        for site in view.sites
    ]
    kept = [name for name in rows[0] if any(row[name] not in ("", DASH) for row in rows)]
    for name in kept:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(row[name]) for name in kept))
    return table


def _lines(*texts: str) -> str:
    return "\n".join(filter(None, texts))
