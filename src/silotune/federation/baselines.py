"""Baselines for research: what each silo reaches alone, with the same steps and mechanism.

They train on the same records a second time and are not covered by the run's epsilon; the
configuration allows them in a simulation only. Their ledgers live and die in a temporary folder,
and no book for life knows of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from silotune.engine import federate
from silotune.runs.folder import RunFolder
from silotune.runtimes import InProcess
from silotune.terms.agreement import experiment

from .built import BuiltFederation, build_clients
from .scoring import own_score
from .trained_models import learned_from


@dataclass(frozen=True, kw_only=True)
class AloneRound:
    """One round of one silo that trains alone.

    Attributes:
        silo: its name.
        round: 0-based.
        metrics: after the last round, on its own held-out records, or else on those of all.
    """

    silo: str
    round: int
    metrics: Mapping[str, float] = field(default_factory=dict)


def silo_alone(built: BuiltFederation) -> Iterator[AloneRound]:
    """Train one silo after the other, each from the beginning; nothing if it is not asked for."""
    if "silo-alone" in built.federation.baselines:
        for name in built.agreement.sizes:
            yield from _alone(built, name)


def _alone(built: BuiltFederation, name: str) -> Iterator[AloneRound]:
    agreement, last = built.agreement, built.terms.rounds - 1
    model, sizes = agreement.model, agreement.sizes
    alone = experiment(built.terms, model, sizes, "alone")
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place))
        clients = build_clients(built, folder.site, alone.run, {})
        own = {client: silo for client, silo in clients.items() if client == name}
        runtime = InProcess(model.trainer, own)
        rounds = federate(replace(alone, quorum=1), runtime, agreement.first_state())
        for i, done in enumerate(rounds):
            metrics: dict[str, float] = {}
            if i == last:
                learned = learned_from(done.state, model, folder, alone.run, list(sizes))
                metrics = own_score(built, name, learned.of(name))
            yield AloneRound(silo=name, round=i, metrics=metrics)
