"""Baselines for research: what each silo reaches alone, with the same steps and mechanism.

They train on the same records a second time and are not covered by the run's epsilon; the
configuration allows them in a simulation only. Their ledgers live and die in a temporary folder.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from silotune.engine import federate
from silotune.reports.record import RunFolder
from silotune.runtimes import InProcess

from .scoring import score
from .workshop import Workshop, build_experiment, build_silos, first_state


def silo_alone(workshop: Workshop) -> dict[str, dict[str, float]]:
    """Metrics of each silo's own adapter, on its own held-out records, or else on those of all."""
    return {name: _alone(workshop, name) for name in workshop.sizes}


def _alone(workshop: Workshop, name: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as place:
        silos = build_silos(workshop, RunFolder(Path(place)))
        own = {client: silo for client, silo in silos.items() if client == name}
        experiment = replace(build_experiment(workshop, f"alone/{name}"), quorum=1)
        runtime = InProcess(workshop.bench, own)
        *_, last = federate(experiment, runtime, first_state(workshop))
    scores = score(workshop, last.state.factors)
    return dict(scores.silos.get(name, scores.overall))
