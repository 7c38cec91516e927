"""Scoring: which records a state is measured on, as ``evaluation`` says; who may see what."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from silotune.core import ClientDataset, ClientTask, ClientUpdate, Meters, pool
from silotune.engine import ACCURACY, evaluate
from silotune.objectives import Objective

from .built import BuiltFederation
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
    silos: dict[str, Meters] = {}
    if evaluation == "simulation":
        silos = {
            name: measured(built, [learned.of(name)], silo.held_out)
            for name, silo in built.data.silos.items()
            if silo.held_out is not None
        }
    public = built.data.valid if built.data.valid is not None else _test(built, silos)
    overall = pool(silos.values())
    if public is not None:
        overall = measured(built, learned.models(), public)
    return Scores(
        overall=readable(overall), silos={name: readable(meters) for name, meters in silos.items()}
    )


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


def _test(built: BuiltFederation, silos: Mapping[str, Meters]) -> ClientDataset | None:
    """Without a table to watch by, the final one, unless silos hold something out."""
    return None if silos else built.data.test
