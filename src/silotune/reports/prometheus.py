"""A view in the text format of Prometheus (version 0.0.4), for whoever collects and warns."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from datetime import datetime

from silotune.runs.live import Doing

from .live_view import SiteView, View

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[Mapping[str, str], float]
"""Labels, and a number."""


def prometheus(view: View) -> str:
    """All figures of a view; those that are not known are left out."""
    run = {"run": view.live.run}
    families: list[tuple[str, str, Iterable[Sample]]] = [
        ("running", "Whether a process has the run.", [(run, view.running)]),
        (
            "private",
            "Whether somebody is hidden, so that an epsilon means something.",
            [(run, view.private)],
        ),
        ("rounds", "Rounds that are planned.", [(run, view.live.rounds)]),
        ("rounds_done", "Rounds that are finished.", [(run, view.rounds)]),
        (
            "bytes",
            "Carried in finished rounds, up from sites and down to them.",
            [
                ({**run, "direction": "up"}, view.bytes_up),
                ({**run, "direction": "down"}, view.bytes_down),
            ],
        ),
        (
            "epsilon_budget",
            "Epsilon that may be spent.",
            _known([(run, view.live.budget)]),
        ),
        ("epsilon", "The largest epsilon that was spent.", _known([(run, view.epsilon)])),
        (
            "metric",
            "The last value of the metric to look at first.",
            [({**run, "name": view.live.metric}, value) for _, value in view.values[-1:]],
        ),
        ("site_doing", "1 for what the site does now, else 0.", _doing(view)),
        (
            "site_connected",
            "Whether its line is up.",
            _known((_site(view, s), s.live.connected) for s in view.sites),
        ),
        (
            "site_heard_timestamp_seconds",
            "When it last said anything, in seconds since 1970.",
            _known((_site(view, s), _seconds(s.live.heard)) for s in view.sites),
        ),
        (
            "site_epsilon",
            "Epsilon that was spent.",
            _known((_site(view, s), s.epsilon) for s in view.sites),
        ),
        (
            "site_rounds",
            "Finished rounds with its update in the mean.",
            _known((_site(view, s), s.rounds) for s in view.sites),
        ),
        (
            "site_missing",
            "Whether the last finished round is without its update.",
            [(_site(view, s), bool(s.missing)) for s in view.sites if s.rounds is not None],
        ),
    ]
    return "".join(_gauge(f"silotune_{name}", text, samples) for name, text, samples in families)


def _gauge(name: str, text: str, samples: Iterable[Sample]) -> str:
    lines = [f"{name}{{{_labels(labels)}}} {_number(value)}\n" for labels, value in samples]
    if not lines:
        return ""
    return f"# HELP {name} {text}\n# TYPE {name} gauge\n{''.join(lines)}"


def _doing(view: View) -> Iterable[Sample]:
    for site in view.sites:
        for one in Doing:
            yield {**_site(view, site), "doing": one}, one == site.live.doing


def _site(view: View, site: SiteView) -> dict[str, str]:
    return {"run": view.live.run, "site": site.name}


def _known(samples: Iterable[tuple[Mapping[str, str], float | None]]) -> list[Sample]:
    return [(labels, value) for labels, value in samples if value is not None]


def _seconds(moment: str) -> float | None:
    return datetime.fromisoformat(moment).timestamp() if moment else None


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(float(value)) if isinstance(value, float) else str(int(value))
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
