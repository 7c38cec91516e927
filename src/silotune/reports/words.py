"""What a run did and what it guarantees, in sentences. The page and the model card share them."""

from __future__ import annotations

import math

from .facts import PrivacyStatement, RunFacts, Summary
from .outcome import Outcome
from .units import count_text, epsilon_text, metric_text, number_text

METHODS = {
    "ffa-lora": (
        "FFA-LoRA",
        "A is public and stays frozen; B is trained and averaged, so that averaging is exact and "
        "the noise of privacy enters linearly (arXiv 2403.12313).",
    ),
    "fedit": (
        "FedIT",
        "Both factors are trained and each is averaged by itself; the mean of products is not the "
        "product of means, which is the aggregation error (arXiv 2305.05644).",
    ),
    "head-only": (
        "the head only",
        "The encoder is used as it is; a linear classifier on it is trained and averaged.",
    ),
}
"""Method -> its name and what it does."""

TASKS = {
    "sequence-classification": "text classification",
    "causal-lm": "language modelling",
    "image-classification": "image classification",
}

UNITS = {"example": "one record at one silo"}

RELATIONS = {
    "add-remove": "two data sets are neighbours if one is the other plus one record",
}

NO_PRIVACY = (
    "This run used no privacy mechanism. Nothing bounds what the messages or the adapter reveal "
    "about single records; treat both as if they were the records themselves."
)

NO_NOISE = (
    "The noise of this run is too small to bound anything: epsilon is infinite. Treat the messages "
    "and the adapter as if they were the records themselves."
)

SIMULATION = (
    "This was a simulation: one machine held the records of all silos. Metrics, results by silo "
    "and the split of the data were computed from them directly and are not covered by epsilon."
)

EVALUATION = {
    "public": "Metrics were computed on public records, which costs no privacy.",
    "site": "Every silo scored the model on its own records and kept the scores in its own folder.",
    "simulation": "Metrics were computed in a simulation, on records that are not covered by "
    "epsilon.",
}


def method_name(summary: Summary) -> str:
    """``FFA-LoRA (rank 8)``."""
    name = METHODS.get(summary.method, (summary.method, ""))[0]
    return f"{name} (rank {summary.rank})" if summary.rank else name


def what_was_done(
    summary: Summary, facts: RunFacts, outcome: Outcome, statement: PrivacyStatement | None
) -> str:
    """The run in two sentences: what was trained and how, what came of it and how private it is."""
    task = TASKS.get(summary.task, summary.task)
    first = (
        f"{count_text(len(facts.silos), 'silo')} fine-tuned {summary.base_model} for {task} with "
        f"{method_name(summary)}, in {count_text(outcome.rounds, 'round')} of "
        f"{count_text(summary.local_steps, 'step')}."
    )
    result = _result(outcome)
    return f"{first} {result[0].upper()}{result[1:]}, and {_privacy(statement)}."


def guarantee(statement: PrivacyStatement) -> list[tuple[str, str]]:
    """Everything that an epsilon means nothing without: pairs of a term and its explanation."""
    unit = UNITS.get(statement.unit, statement.unit)
    relation = RELATIONS.get(statement.relation, "as the relation says")
    rows = [
        ("What is hidden", f"{_capital(unit)} (privacy unit: {statement.unit})."),
        ("Neighbouring data", f"{_capital(relation)} (relation: {statement.relation})."),
        ("From whom", _sentence(statement.trust_model)),
        ("Guarantee", _budget(statement)),
        ("Federation", _overall(statement)),
        ("Sampling", f"{_sentence(statement.sampling)} An empty batch still takes a noised step."),
        (
            "Clipping",
            f"Each record's gradient, over all trained numbers together, to a Euclidean norm of "
            f"C = {number_text(statement.max_grad_norm)}.",
        ),
        ("Noise", f"{_capital(statement.noise)}; its std is the noise multiplier times C."),
        ("Accountant", f"{statement.accountant}; every executed step is charged."),
    ]
    return [(term, text) for term, text in rows if text]


def warning(statement: PrivacyStatement | None) -> str:
    """Why there is no differential privacy; empty if there is."""
    if statement is None:
        return NO_PRIVACY
    return "" if math.isfinite(statement.largest_epsilon()) else NO_NOISE


def final_score(facts: RunFacts) -> str:
    """How the finished adapter does on the test records; empty if there are none."""
    scores = [f"{name} {metric_text(name, value)}" for name, value in facts.final.items()]
    return f"The finished adapter on the test records: {', '.join(scores)}." if scores else ""


def _result(outcome: Outcome) -> str:
    if not math.isfinite(outcome.after):
        return "no global metric was computed"
    after = metric_text(outcome.metric, outcome.after)
    if not math.isfinite(outcome.before):
        return f"{outcome.metric} is {after}"
    return f"{outcome.metric} went from {metric_text(outcome.metric, outcome.before)} to {after}"


def _privacy(statement: PrivacyStatement | None) -> str:
    if statement is None:
        return "there was no differential privacy"
    if not math.isfinite(statement.largest_epsilon()):
        return "its noise is too small for any differential privacy"
    epsilon, delta = epsilon_text(statement.largest_epsilon()), number_text(statement.target_delta)
    hidden = "every record" if statement.unit == "example" else f"every {statement.unit}"
    return f"{hidden} is protected with ε ≤ {epsilon} at δ = {delta} for the whole run"


def _budget(statement: PrivacyStatement) -> str:
    spent = epsilon_text(statement.largest_epsilon())
    delta = number_text(statement.target_delta)
    text = f"(ε, δ)-differential privacy with ε ≤ {spent}, δ = {delta}, for the whole run"
    if statement.target_epsilon is None:
        return f"{text}."
    return f"{text}; the budget of each silo was ε = {number_text(statement.target_epsilon)}."


def _overall(statement: PrivacyStatement) -> str:
    epsilon = statement.overall.get("epsilon")
    if epsilon is None:
        return ""
    condition = statement.overall.get("holds_if", "records are disjoint by origin")
    return f"ε = {epsilon_text(epsilon)} over all silos together if {condition.removesuffix('.')}."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    return f"{_capital(text).removesuffix('.')}."
