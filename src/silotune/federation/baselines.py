"""Baselines for research: what each silo reaches alone, with the same steps and mechanism.

They train on the same records a second time and are not covered by the run's epsilon; the
configuration allows them in a simulation only. Their ledgers live and die in a temporary folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from silotune.engine import federate
from silotune.runs.folder import RunFolder
from silotune.runtimes import InProcess

from .federation import Federation, build_experiment, build_silos, first_state
from .scoring import score
from .trained_models import TrainedModels, learned_from


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


def silo_alone(workshop: Federation) -> Iterator[AloneRound]:
    """Train one silo after the other, each from the beginning; nothing if it is not asked for."""
    if "silo-alone" in workshop.config.baselines:
        for name in workshop.sizes:
            yield from _alone(workshop, name)


def _alone(workshop: Federation, name: str) -> Iterator[AloneRound]:
    config, model, last = workshop.config, workshop.model, workshop.config.train.num_rounds - 1
    experiment = build_experiment(config, model, workshop.sizes, f"alone/{name}")
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place))
        silos = build_silos(workshop, folder)
        own = {client: silo for client, silo in silos.items() if client == name}
        runtime = InProcess(model.bench, own)
        rounds = federate(replace(experiment, quorum=1), runtime, first_state(workshop))
        for i, done in enumerate(rounds):
            learned = learned_from(done.state, model, folder, experiment.run, list(workshop.sizes))
            metrics = _own(workshop, name, learned) if i == last else {}
            yield AloneRound(silo=name, round=i, metrics=metrics)


def _own(workshop: Federation, name: str, learned: TrainedModels) -> dict[str, float]:
    """Of the silo's model alone, whatever the others' were."""
    scores = score(workshop, TrainedModels(shared=learned.of(name)))
    return dict(scores.silos.get(name, scores.overall))
