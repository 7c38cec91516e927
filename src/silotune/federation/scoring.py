"""Scoring: which records a state is measured on, as ``evaluation`` says; who may see what."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

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
from silotune.objectives import find
from silotune.runs.folder import RunFolder
from silotune.runs.scored import Scored
from silotune.terms import Terms

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


class Where(NamedTuple):
    """Records that may be scored: of a silo, or beside all silos, whose name is then empty.

    ``valid``: what rounds are scored on; ``test``: what is for the final figure.
    """

    silo: str
    part: Literal["valid", "test"]


class Ask(NamedTuple):
    """Which models are to answer which records, one after another."""

    models: Sequence[ModelState]
    records: Where


Measure = Callable[[Sequence[Ask]], Sequence[Answers]]
"""Gives the answers to each ask, in order; where they are computed is its own affair."""


def here(built: BuiltFederation) -> Measure:
    """In this process, one ask after the other."""

    def measure(asks: Sequence[Ask]) -> list[Answers]:
        return [measured(built, ask.models, records_at(built.data, ask.records)) for ask in asks]

    return measure


def score(built: BuiltFederation, learned: TrainedModels, measure: Measure | None = None) -> Scores:
    """The metrics that belong on the record of a round.

    ``public``: on the public records. ``simulation``: the same, or else on what the silos hold
    out, pooled; silo by silo as well. ``site``: nothing, since scores stay at home. Where silos
    have models of their own, each looks at its own records, and all at the public ones, pooled.

    Args:
        built: whose records are scored.
        learned: by which models.
        measure: computes; None = here.
    """
    evaluation = built.terms.evaluation
    if evaluation == "site":
        return Scores()
    own = _watched(built.data) if evaluation == "simulation" else {}
    shared = _shared(built.data, own)
    part = "held out" if shared is None else "valid"
    part = "test" if shared is not None and shared.part == "test" else part
    return _scores(learned, part, shared, own, measure or here(built))


def own_score(built: BuiltFederation, silo: str, model: ModelState) -> dict[str, float]:
    """A model on one silo's own records as rounds score them, or else on those of all."""
    own = _watched(built.data).get(silo) if built.terms.evaluation == "simulation" else None
    where = own or _shared(built.data, ())
    return {} if where is None else here(built)([Ask([model], where)])[0].metrics()


def own_final_score(built: BuiltFederation, silo: str, model: ModelState) -> dict[str, float]:
    """A model on the test records: those for everybody, or else the silo's own in a simulation."""
    own = _tests(built.data) if built.terms.evaluation == "simulation" else {}
    where = Where("", "test") if built.data.test is not None else own.get(silo)
    return {} if where is None else here(built)([Ask([model], where)])[0].metrics()


def final_scores(
    built: BuiltFederation, learned: TrainedModels, measure: Measure | None = None
) -> Scores:
    """The metrics on the test records: those for everybody, or else those of the silos, pooled.

    Silos' own ones are looked at in a simulation only, each by the silo's model.

    Args:
        built: as for ``score``, like all others.
        learned: by which models.
        measure: computes; None = here.
    """
    own = _tests(built.data) if built.terms.evaluation == "simulation" else {}
    shared = Where("", "test") if built.data.test is not None else None
    return _scores(learned, "test", shared, own, measure or here(built))


def last_score(
    built: BuiltFederation,
    learned: TrainedModels,
    measure: Measure | None = None,
    known: Scores | None = None,
) -> Scored | None:
    """The finished model on the test records, if there are any, or else where rounds are scored.

    Args:
        built: as for ``score``, like all others.
        learned: by which models.
        measure: computes; None = here.
        known: what ``score`` has found of these very models; None if that is to be done yet.
    """
    if built.terms.evaluation == "site":
        return None
    final = final_scores(built, learned, measure).scored
    return final or (known or score(built, learned, measure)).scored


def _scores(
    learned: TrainedModels,
    part: str,
    shared: Where | None,
    own: Mapping[str, Where],
    measure: Measure,
) -> Scores:
    """Of records that all share, or else of silos' own ones together."""
    asks = [Ask([learned.of(name)], where) for name, where in own.items()]
    asks += [] if shared is None else [Ask(learned.models(), shared)]
    answers = measure(asks)
    silos = dict(zip(own, answers, strict=False))  # what all share comes last
    overall = joined(silos.values()) if shared is None else answers[-1]
    models = 1 if shared is None else len(learned.models())
    records = len(overall.counts) // models
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
        counts=derived.counts,
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
    trainer = built.agreement.model.trainer
    size = trainer.eval_batch
    return joined(
        evaluate(trainer.adapted, trainer.objective, m.factors, examples, size, m.folded)
        for m in models
    )


def metric_name(terms: Terms) -> str:
    """The metric to look at first: of scores that stay at home, what may be released of them."""
    task = find(terms.objective.task)
    return ACCURACY if terms.evaluation == "site" and task.counts_right else task.metric


def records_at(data: ReadData, where: Where) -> ClientDataset:
    """The records themselves.

    Raises:
        ValueError: if there are none.
    """
    found: ClientDataset | None
    if not where.silo:
        found = data.valid if where.part == "valid" else data.test
    else:
        silo = data.silos[where.silo]
        found = silo.held_out if where.part == "valid" else silo.test
    if found is None:
        raise ValueError(f"splits.{where.part}: there are no such records to score")
    return found


def _watched(data: ReadData) -> dict[str, Where]:
    """What silos hold out; their final records, if that is all that there is to look at."""
    held = {n: Where(n, "valid") for n, silo in data.silos.items() if silo.held_out is not None}
    if held or data.valid is not None or data.test is not None:
        return held
    return _tests(data)


def _tests(data: ReadData) -> dict[str, Where]:
    """The final records of silos that have any."""
    return {n: Where(n, "test") for n, silo in data.silos.items() if silo.test is not None}


def _shared(data: ReadData, silos: Collection[str]) -> Where | None:
    """Records of all that rounds are scored on; without silos' own ones even the final ones."""
    if data.valid is not None:
        return Where("", "valid")
    return None if silos or data.test is None else Where("", "test")
