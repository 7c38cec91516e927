"""What a run did, in sentences. The page and the model card share them."""

from __future__ import annotations

import math

from silotune.certificate.guarantee import in_short
from silotune.core import work_text
from silotune.core.units import count_text, metric_text
from silotune.objectives import find
from silotune.runs.facts import RunFacts, Summary
from silotune.runs.privacy_statement import PrivacyStatement

from .certainty import score_text
from .totals import Outcome

SIMULATION = (
    "This was a simulation: one machine held the records of all silos. Metrics, results by silo "
    "and the split of the data were computed from them directly and are not covered by epsilon."
)

PERSONAL = (
    "Models are personal: every silo keeps some of the trained tensors to itself and ends with a "
    "model of its own, and figures of the whole run are of all these models together."
)

NOISE_BY_ROUND = (
    "Privacy noise over signal in what each round changed. Above 1, the dashed line, a round has "
    "more noise than everything else that is seen of it. The released change contains the noise, "
    "so the signal is what is left, √(change² − noise²); on the top line too little is left to be "
    "told from noise alone. Over n rounds a steady signal gains √n on the noise, so a run can "
    "learn above 1. Made of what was released anyway, it costs no privacy."
)

NOISE_UNKNOWN = (
    "Noise to signal by round is not shown: how much noise is in what a round changed is known "
    "under plain averaging only, for independent noise and declared weights, and with SGD without "
    "momentum and weight decay unless whole clients are hidden."
)

WORSE = "Worse than before training"

EVALUATION = {
    "public": "Metrics were computed on public records, which costs no privacy.",
    "site": "Every silo scored the model on its own records and kept the scores in its own folder.",
    "simulation": "Metrics were computed in a simulation, on records that are not covered by "
    "epsilon.",
}


def method_name(summary: Summary) -> str:
    """``FFA-LoRA (rank 8)``."""
    title = summary.method_title
    return f"{title} (rank {summary.rank})" if summary.rank else title


def what_was_done(
    summary: Summary, facts: RunFacts, outcome: Outcome, statement: PrivacyStatement | None
) -> str:
    """The run in two sentences: what was trained and how, what came of it and how private it is."""
    task = find(summary.task).title
    first = (
        f"{count_text(len(facts.silos), 'silo')} fine-tuned {summary.base_model} for {task} with "
        f"{method_name(summary)}, in {count_text(outcome.rounds, 'round')} of "
        f"{work_text(summary.local_steps, summary.local_epochs)}."
    )
    own = f"{_averaged(facts)} {PERSONAL}" if summary.personal else _averaged(facts)
    result = _result(outcome)
    return f"{first}{own} {result[0].upper()}{result[1:]}, and {in_short(statement)}."


def _averaged(facts: RunFacts) -> str:
    """Of which rounds the weights are the mean, counted from 1; nothing where of one."""
    if not facts.averaged:
        return ""
    first, last = facts.averaged
    return f" Its weights are the mean of those after rounds {first + 1} to {last + 1}."


def final_score(facts: RunFacts) -> str:
    """How the finished adapter does on the records of its last score; empty if there are none."""
    if facts.scored is None or not facts.scored.metrics:
        return ""
    where = {"test": "the test records", "valid": "the validation records"}
    part = where.get(facts.scored.part, "the records that silos hold out")
    return f"The finished adapter on {part}: {score_text(facts.scored)}."


def decline(outcome: Outcome) -> str:
    """What nobody may overlook of a result that is worse than the start; empty of any other."""
    if not outcome.worse:
        return ""
    after = metric_text(outcome.metric, outcome.after)
    left = after if math.isfinite(outcome.after) else "no number"
    return (
        f"{WORSE}: {outcome.metric} went from {metric_text(outcome.metric, outcome.before)} to "
        f"{left}. The usual causes are a learning rate that is too large and, under privacy, more "
        "noise than signal, which silotune plan foretells"
    )


def _result(outcome: Outcome) -> str:
    if not math.isfinite(outcome.after):
        return "no global metric was computed"
    after = metric_text(outcome.metric, outcome.after)
    if not math.isfinite(outcome.before):
        return f"{outcome.metric} is {after}"
    return f"{outcome.metric} went from {metric_text(outcome.metric, outcome.before)} to {after}"
