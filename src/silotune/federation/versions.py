"""Versions: the software that made a run, and from which round on."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from silotune.core.packages import installed
from silotune.runs.facts import RunFacts
from silotune.version import __version__

RECORDED_PACKAGES = (
    "torch",
    "transformers",
    "datasets",
    "dp-accounting",
    "cryptography",
    "safetensors",
    "numpy",
)
"""Whose versions a run records."""


def versions() -> dict[str, str]:
    """Of silotune, Python and the recorded packages, as they are here."""
    own = {"silotune": __version__, "python": platform.python_version()}
    return own | {name: installed(name) for name in RECORDED_PACKAGES}


def going_on(facts: RunFacts, round: int) -> RunFacts:
    """The facts of a run that goes on here: they name other versions, from ``round`` on."""
    here = versions()
    before = [upgrade for upgrade in facts.upgrades if upgrade["round"] < round]
    if round == 0:
        return replace(facts, versions=here, upgrades=())
    if here == _last(facts.versions, before):
        return replace(facts, upgrades=before)
    return replace(facts, upgrades=[*before, {"round": round, "versions": here}])


def notices(facts: RunFacts, round: int) -> Iterator[str]:
    """What somebody should know whose run goes on with other versions."""
    for upgrade in facts.upgrades:
        if upgrade["round"] == round:
            before = [one for one in facts.upgrades if one["round"] < round]
            old, new = _last(facts.versions, before), upgrade["versions"]
            changed = [f"{n} {old.get(n)} -> {v}" for n, v in new.items() if old.get(n) != v]
            yield (
                f"resume: the rounds so far were made with other versions ({', '.join(changed)}); "
                "run.json names both, and the result is that of neither alone"
            )


def _last(first: Mapping[str, str], upgrades: Sequence[Mapping[str, Any]]) -> Mapping[str, str]:
    found: Mapping[str, str] = upgrades[-1]["versions"] if upgrades else first
    return found
