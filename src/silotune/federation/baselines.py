"""Baselines for research: each silo alone, with the same steps and mechanism, and the start.

Silos alone train on the same records a second time and are not covered by the run's epsilon; the
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
from .scoring import last_score, own_final_score, own_score
from .trained_models import learned_from
from .workers import Workers


@dataclass(frozen=True, kw_only=True)
class AloneRound:
    """One round of one silo that trains alone.

    Attributes:
        silo: its name.
        round: 0-based.
        metrics: after the last round, on its own held-out records, or else on those of all.
        final: after the last round, on the test records, if there are any, or else as ``metrics``.
    """

    silo: str
    round: int
    metrics: Mapping[str, float] = field(default_factory=dict)
    final: Mapping[str, float] = field(default_factory=dict)


def untrained(built: BuiltFederation) -> Mapping[str, float]:
    """Metrics of the model that a run begins with, on the records of its final score."""
    agreement = built.agreement
    with tempfile.TemporaryDirectory() as place:  # no silo has anything of its own yet
        folder, silos = RunFolder(Path(place)), list(agreement.sizes)
        start = learned_from(agreement.first_state(), agreement.model, folder, "start", silos)
        scored = last_score(built, start)
    return scored.metrics if scored else {}


def silo_alone(built: BuiltFederation, workers: Workers | None = None) -> Iterator[AloneRound]:
    """Train one silo after the other, each from the beginning; nothing if it is not asked for.

    Args:
        built: whose silos they are.
        workers: where they train, several at once, and tell of their last round alone; None = here.
    """
    if "silo-alone" not in built.federation.baselines:
        return
    silos, terms = built.agreement.sizes, built.terms
    with tempfile.TemporaryDirectory() as place:
        if workers is None:
            for name in silos:
                yield from train_alone(built, name, Path(place))
            return
        slowest_first = sorted(silos, key=lambda name: -terms.steps_of(silos[name]))
        for name, metrics in workers.alone(slowest_first, terms.rounds, Path(place)):
            yield AloneRound(silo=name, round=terms.rounds - 1, metrics=metrics)


def train_alone(built: BuiltFederation, name: str, place: Path) -> Iterator[AloneRound]:
    """Train one silo from the beginning.

    Args:
        built: whose silo it is.
        name: the silo's.
        place: a folder for what it keeps meanwhile.
    """
    agreement, last = built.agreement, built.terms.rounds - 1
    model, sizes = agreement.model, agreement.sizes
    alone = experiment(built.terms, model, sizes, "alone")
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as own_place:  # of this attempt
        folder = RunFolder(Path(own_place))
        clients = build_clients(built, folder.site, alone.run, {})
        own = {client: silo for client, silo in clients.items() if client == name}
        runtime = InProcess(model.trainer, own)
        rounds = federate(replace(alone, quorum=1), runtime, agreement.first_state())
        for i, done in enumerate(rounds):
            metrics: dict[str, float] = {}
            final: dict[str, float] = {}
            if i == last:
                result = agreement.result(done.state)
                learned = learned_from(result, model, folder, alone.run, list(sizes))
                metrics = own_score(built, name, learned.of(name))
                final = own_final_score(built, name, learned.of(name)) or metrics
            yield AloneRound(silo=name, round=i, metrics=metrics, final=final)
