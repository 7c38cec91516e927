"""``report.html``: one page that says what a run did, for people. Self-contained, without scripts.

What the numbers mean is decided in ``totals`` and ``prose``; here they are put into the template.
"""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from markupsafe import Markup

from silotune.certificate import guarantee
from silotune.core import units
from silotune.objectives import find
from silotune.runs.facts import RunFacts, Summary, read_facts
from silotune.runs.folder import RoundRecord, RunFolder
from silotune.runs.privacy_statement import PrivacyStatement, read_statement
from silotune.runs.scored import Scored

from . import plots, prose, silo_plots
from .certainty import METHOD, Interval, intervals
from .classes import classes_of
from .environment import environment
from .model_card import OWN_FORMAT
from .plot_style import themed
from .tables import label_rows
from .totals import SiloOutcome, has_silo_metrics, outcome, silo_outcomes
from .usage import adapter_program


def render(run: RunFolder, summary: Summary) -> str:
    """The page about a run, finished or not.

    Outside simulations it shows nothing of single silos but declared sizes and privacy.

    Raises:
        RecordError: if a file of the run is missing, damaged or of a newer version.
    """
    facts, statement, rounds = read_facts(run), read_statement(run), run.read_rounds()
    if not summary.is_simulation:
        alone = replace(facts.scored, silos={}) if facts.scored else None
        facts = replace(facts, baselines={}, scored=alone)
        rounds = [replace(record, silos={}) for record in rounds]
        summary = replace(summary, split={})
    totals = outcome(rounds, facts.metric)
    silos = silo_outcomes(facts, rounds, statement)
    return (
        environment()
        .get_template("report.html")
        .render(
            summary=summary,
            facts=facts,
            statement=statement,
            rounds=rounds,
            outcome=totals,
            silos=silos,
            decline=prose.decline(totals),
            worse_silos=_worse_silos(silos, facts.metric),
            change=units.change_text(totals.metric, totals.before, totals.after),
            has_baseline=any(math.isfinite(row.alone) for row in silos),
            has_scored=any(row.scored is not None for row in silos),
            scored_on=_scored_on(rounds),
            metric_names=list(dict.fromkeys(name for record in rounds for name in record.metrics)),
            absences=[(r.round, name, why) for r in rounds for name, why in r.missing.items()],
            what_was_done=prose.what_was_done(summary, facts, totals, statement),
            plain_words=guarantee.in_plain_words(statement) if statement else [],
            guarantee=guarantee.guarantee(statement) if statement else [],
            warning=guarantee.warning(statement),
            noun=guarantee.noun(statement) if statement else "",
            seeded=guarantee.is_seeded(statement),
            charges=_charges(statement) if statement else [],
            scores=_scores(facts.scored),
            certainty=METHOD if facts.scored else "",
            classes=classes_of(facts.scored, facts.labels, find(summary.task)),
            simulation=prose.SIMULATION,
            evaluation=prose.EVALUATION.get(summary.evaluation, ""),
            method=f"{prose.method_name(summary)} – {summary.method_words}",
            pictures=_pictures(facts, rounds, silos, statement, summary),
            labels=label_rows(summary.split, _MOST_LABELS),
            usage=adapter_program(summary, facts.labels),
            noise=prose.NOISE_BY_ROUND,
            noise_unknown=prose.NOISE_UNKNOWN,
            own_format=OWN_FORMAT.replace("`", ""),
            command=shlex.join(facts.command),
            config=run.config.read_text(encoding="utf-8") if run.config.exists() else "",
        )
    )


def _scores(scored: Scored | None) -> list[tuple[str, float, Interval | None]]:
    """Metric, value and where it lies."""
    if scored is None:
        return []
    known = intervals(scored)
    return [(name, value, known.get(name)) for name, value in scored.metrics.items()]


def _worse_silos(silos: Sequence[SiloOutcome], metric: str) -> str:
    """Which silos ended below their own start; the first few by name."""
    names = [row.silo for row in silos if row.is_worse(metric)]
    return units.names_text(names, _NAMED)


_MOST_LABELS = 100
"""Labels that a table lists; others are one row."""

_NAMED = 12
"""Silos that a sentence names."""


def _charges(statement: PrivacyStatement) -> list[tuple[str, str, str, str, str]]:
    """Silo, release, kind, its numbers and how often, for every line of the certificate."""
    return [
        (name, str(line["release"]), kind, numbers, units.count_text(line["times"], "time"))
        for name, silo in statement.silos.items()
        for line in silo.charges
        for kind, numbers in [_charge(line["charge"])]
    ]


def _charge(charge: Mapping[str, Any]) -> tuple[str, str]:
    numbers = ", ".join(
        f"{key.replace('_', ' ')} {value if isinstance(value, bool) else units.number_text(value)}"
        for key, value in charge.items()
        if key != "kind"
    )
    return str(charge["kind"]), numbers


def _pictures(
    facts: RunFacts,
    rounds: Sequence[RoundRecord],
    silos: Sequence[SiloOutcome],
    statement: PrivacyStatement | None,
    summary: Summary,
) -> dict[str, Markup]:
    """Pictures by name; empty where there is nothing to see."""
    results = _results(silos)
    trained = any(record.round >= 0 for record in rounds)
    measured = any(record.metrics or record.silos for record in rounds)
    noised = statement and any(record.noise_to_signal is not None for record in rounds)
    target = statement.target_epsilon if statement else None
    apart = facts.metric not in ("loss", "perplexity")
    losses = apart and any("loss" in record.metrics for record in rounds)
    drawn = {
        "metric": plots.metric_by_round(rounds, facts.metric) if measured else "",
        "loss": plots.metric_by_round(rounds, "loss") if losses else "",
        "silos": silo_plots.silo_results(results, facts.metric) if results else "",
        "epsilon": plots.epsilon_by_round(rounds, target) if statement and trained else "",
        "bytes": plots.bytes_by_round(rounds) if trained else "",
        "error": plots.aggregation_error_by_round(rounds) if trained else "",
        "noise": plots.noise_by_round(rounds) if noised else "",
        "split": silo_plots.data_split(summary.split) if summary.split else "",
    }
    # plots escape what they write, and nothing else is marked as safe
    return {name: Markup(themed(svg)) for name, svg in drawn.items()}


def _results(silos: Sequence[SiloOutcome]) -> Mapping[str, Mapping[str, float]]:
    """Condition -> silo -> value, of the conditions that were measured."""
    conditions = {
        "before": {row.silo: row.before for row in silos},
        "alone": {row.silo: row.alone for row in silos},
        "federated": {row.silo: row.after for row in silos},
    }
    return {
        name: values
        for name, values in conditions.items()
        if any(math.isfinite(value) for value in values.values())
    }


def _scored_on(rounds: Sequence[RoundRecord]) -> str:
    own = has_silo_metrics(rounds)
    return "each silo's own held-out records" if own else "the held-out records of all"
