"""Scoring: which records a state is measured on, as ``evaluation`` says; who may see what."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from silotune.core import (
    Answers,
    ClientDataset,
    ClientTask,
    ClientUpdate,
    append_line,
    joined,
    pool,
)
from silotune.engine import ACCURACY, evaluate
from silotune.objectives import Objective, find
from silotune.runs.folder import RunFolder
from silotune.runs.scored import Scored

from .built import BuiltFederation
from .inputs import ReadData
from .trained_models import ModelState, TrainedModels


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Metrics by name: of all together, and of each silo's own records in a simulation.

    ``scored`` is what stands behind those of all together; None where there is nothing.
    """

    overall: Mapping[str, float] = field(default_factory=dict)
    silos: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    scored: Scored | None = None


def score(built: BuiltFederation, learned: TrainedModels) -> Scores:
    """The metrics that belong on the record of a round.

    ``public``: on the public records. ``simulation``: the same, or else on what the silos hold
    out, pooled; silo by silo as well. ``site``: nothing, since scores stay at home. Where silos
    have models of their own, each looks at its own records, and all at the public ones, pooled.
    """
    evaluation = built.terms.evaluation
    if evaluation == "site":
        return Scores()
    data, silos = built.data, dict[str, Answers]()
    if evaluation == "simulation":
        silos = {
            name: measured(built, [learned.of(name)], examples)
            for name, examples in _watched(data).items()
        }
    shared = _shared(data, silos)
    part = "test" if data.valid is None and shared is not None else "valid"
    return _scores(built, learned, "held out" if shared is None else part, shared, silos)


def own_score(built: BuiltFederation, silo: str, model: ModelState) -> dict[str, float]:
    """A model on one silo's own records as rounds score them, or else on those of all."""
    own = _watched(built.data).get(silo) if built.terms.evaluation == "simulation" else None
    examples = own if own is not None else _shared(built.data, ())
    return {} if examples is None else measured(built, [model], examples).metrics()


def final_scores(built: BuiltFederation, learned: TrainedModels) -> Scores:
    """The metrics on the test records: those for everybody, or else those of the silos, pooled.

    Silos' own ones are looked at in a simulation only, each by the silo's model.
    """
    own: dict[str, Answers] = {}
    if built.terms.evaluation == "simulation":
        own = {
            name: measured(built, [learned.of(name)], silo.test)
            for name, silo in built.data.silos.items()
            if silo.test is not None
        }
    return _scores(built, learned, "test", built.data.test, own)


def last_score(built: BuiltFederation, learned: TrainedModels) -> Scored | None:
    """The finished model on the test records, if there are any, or else where rounds are scored."""
    if built.terms.evaluation == "site":
        return None
    return final_scores(built, learned).scored or score(built, learned).scored


def _scores(
    built: BuiltFederation,
    learned: TrainedModels,
    part: str,
    shared: ClientDataset | None,
    silos: Mapping[str, Answers],
) -> Scores:
    """Of records that all share, or else of silos' own ones together."""
    overall = joined(silos.values())
    if shared is not None:
        overall = measured(built, learned.models(), shared)
    records = len(overall.counts) if shared is None else len(shared.lengths)
    return Scores(
        overall=overall.metrics(),
        silos={name: own.metrics() for name, own in silos.items()},
        scored=scored(part, overall, records, silos) if overall.totals else None,
    )


def scored(
    part: str, answers: Answers, records: int, silos: Mapping[str, Answers] | None = None
) -> Scored:
    """What stands behind a score.

    Args:
        part: which records they are.
        answers: to them, perhaps of several models.
        records: how many there are. Several answers to one record are no more certain than one.
        silos: answers to each silo's own ones.
    """
    derived = answers.derive(answers)
    wider = math.sqrt(len(answers.counts) / records) if records else math.nan
    errors = {name: answers.error(name) for name in answers.totals if name != "accuracy"}
    errors |= derived.errors
    return Scored(
        part=part,
        records=records,
        metrics=answers.metrics(),
        errors={name: wider * error for name, error in errors.items()},
        classes=derived.classes,
        silos={name: len(own.counts) for name, own in (silos or {}).items()},
    )


def score_tests_at_home(built: BuiltFederation, learned: TrainedModels, folder: RunFolder) -> None:
    """Score each silo's own test records; what comes out stays in the silo's folder."""
    for name, silo in built.data.silos.items():
        if silo.test is not None:
            metrics = measured(built, [learned.of(name)], silo.test).metrics()
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
) -> Answers:
    """Answers to ``examples``, of several models one after another."""
    trainer, size = built.agreement.model.trainer, built.federation.machine.eval_batch_size
    return joined(
        evaluate(trainer.adapted, trainer.objective, m.factors, examples, size, m.folded)
        for m in models
    )


def metric_name(objective: Objective) -> str:
    """The metric to look at first."""
    return find(objective.task).metric


def _watched(data: ReadData) -> dict[str, ClientDataset]:
    """What silos hold out; their final records, if that is all that there is to look at."""
    held = {name: silo.held_out for name, silo in data.silos.items() if silo.held_out is not None}
    if held or data.valid is not None or data.test is not None:
        return held
    return {name: silo.test for name, silo in data.silos.items() if silo.test is not None}


def _shared(data: ReadData, silos: Collection[str]) -> ClientDataset | None:
    """Records of all that rounds are scored on; without silos' own ones even the final ones."""
    if data.valid is not None:
        return data.valid
    return None if silos else data.test
