"""Scoring: which records a state is measured on, as ``evaluation`` says; who may see what."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from silotune.core import ClientDataset, ClientTask, ClientUpdate, Meters, append_line, pool
from silotune.engine import ACCURACY, evaluate
from silotune.objectives import Objective
from silotune.runs.folder import RunFolder

from .built import BuiltFederation
from .inputs import ReadData
from .trained_models import ModelState, TrainedModels


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Metrics by name: of all together, and of each silo's own records in a simulation."""

    overall: Mapping[str, float] = field(default_factory=dict)
    silos: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def score(built: BuiltFederation, learned: TrainedModels) -> Scores:
    """The metrics that belong on the record of a round.

    ``public``: on the public records. ``simulation``: the same, or else on what the silos hold
    out, pooled; silo by silo as well. ``site``: nothing, since scores stay at home. Where silos
    have models of their own, each looks at its own records, and all at the public ones, pooled.
    """
    evaluation = built.terms.evaluation
    if evaluation == "site":
        return Scores()
    data, silos = built.data, dict[str, Meters]()
    if evaluation == "simulation":
        silos = {
            name: measured(built, [learned.of(name)], examples)
            for name, examples in _watched(data).items()
        }
    public = data.valid if data.valid is not None else _test(built, silos)
    overall = pool(silos.values())
    if public is not None:
        overall = measured(built, learned.models(), public)
    return Scores(
        overall=readable(overall), silos={name: readable(meters) for name, meters in silos.items()}
    )


def final_scores(built: BuiltFederation, learned: TrainedModels) -> Scores:
    """The metrics on the test records: those for everybody, or else those of the silos, pooled.

    Silos' own ones are looked at in a simulation only, each by the silo's model.
    """
    own: dict[str, Meters] = {}
    if built.terms.evaluation == "simulation":
        own = {
            name: measured(built, [learned.of(name)], silo.test)
            for name, silo in built.data.silos.items()
            if silo.test is not None
        }
    test = built.data.test
    overall = pool(own.values()) if test is None else measured(built, learned.models(), test)
    return Scores(
        overall=readable(overall), silos={name: readable(meters) for name, meters in own.items()}
    )


def score_tests_at_home(built: BuiltFederation, learned: TrainedModels, folder: RunFolder) -> None:
    """Score each silo's own test records; what comes out stays in the silo's folder."""
    for name, silo in built.data.silos.items():
        if silo.test is not None:
            metrics = readable(measured(built, [learned.of(name)], silo.test))
            append_line(folder.site(name) / "metrics.jsonl", {"split": "test", "metrics": metrics})


def released_scores(tasks: Sequence[ClientTask], results: Iterable[ClientUpdate]) -> Scores:
    """What silos that score at home let the others know: noisy right answers, pooled, if at all.

    Args:
        tasks: what they were asked; other answers are left out, and second ones.
        results: as they arrive.
    """
    asked = {(task.run, task.round, task.client) for task in tasks}
    told = {r.client: r for r in results if (r.run, r.round, r.client) in asked}
    accuracy = pool({ACCURACY: r.meters[ACCURACY]} for r in told.values() if ACCURACY in r.meters)
    return Scores(overall={n: min(max(m.value(), 0.0), 1.0) for n, m in accuracy.items()})


def measured(
    built: BuiltFederation, models: Iterable[ModelState], examples: ClientDataset
) -> Meters:
    """Meters over ``examples``, of several models together."""
    trainer, size = built.agreement.model.trainer, built.federation.machine.eval_batch_size
    return pool(
        evaluate(trainer.adapted, trainer.objective, m.factors, examples, size, m.folded)
        for m in models
    )


def readable(meters: Meters) -> dict[str, float]:
    """Values by name; a language model's loss also as perplexity."""
    values = {name: meter.value() for name, meter in meters.items()}
    if values and "accuracy" not in values:
        values["perplexity"] = math.exp(min(values["loss"], 700.0))
    return values


def metric_name(objective: Objective) -> str:
    """The metric to look at first."""
    return "perplexity" if objective.task == "causal-lm" else "accuracy"


def _watched(data: ReadData) -> dict[str, ClientDataset]:
    """What silos hold out; their final records, if that is all that there is to look at."""
    held = {name: silo.held_out for name, silo in data.silos.items() if silo.held_out is not None}
    if held or data.valid is not None or data.test is not None:
        return held
    return {name: silo.test for name, silo in data.silos.items() if silo.test is not None}


def _test(built: BuiltFederation, silos: Mapping[str, Meters]) -> ClientDataset | None:
    """Without a table to watch by, the final one, unless silos hold something out."""
    return None if silos else built.data.test
