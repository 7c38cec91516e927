"""What a certificate promises, in sentences: in short, in plain words, and term by term.

Where nothing is promised they say so first, and never use the word of a promise.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from silotune.core.units import count_text, epsilon_text, number_text
from silotune.runs.privacy_statement import PrivacyStatement, SiloPrivacy

from .lifetime import AT_SITES, RECORDED

PROTECTED = {
    "example": "one record at one silo",
    "client": "one client as a whole: all its records, in all rounds",
}

NOUNS = {"example": "record", "client": "client"}
"""Unit -> what one of it is called."""

RELATIONS = {
    "add-remove": "two data sets are neighbours if one is the other plus one {noun}",
    "zero-out": "two data sets are neighbours if one has, in place of a {noun} of the other, one "
    "that gives nothing but keeps its place",
    "replace-one": "two data sets are neighbours if one has, in place of a {noun} of the other, "
    "any other {noun}",
}

DIGITS = 16
"""Of a digest that people compare."""

NOT_PRIVATE = "NOT PRIVATE"
"""Begins whatever nobody may overlook."""

NO_PRIVACY = (
    "This run used no privacy mechanism. Nothing bounds what the messages or the adapter reveal "
    "about single records; treat both as if they were the records themselves."
)

NO_NOISE = (
    "The noise of this run is too small to bound anything: epsilon is infinite. Treat the messages "
    "and the adapter as if they were the records themselves."
)

SEEDED = (
    "Noise and sampling coins came from the seed of the experiment "
    "(privacy.insecure_seeded_noise: true), so whoever has the seed can draw them again and take "
    "the noise away. Treat the messages and the adapter as if they were the records themselves."
)

ORIGINS = {
    "example": "Records stayed at their silos. What a silo sent was blurred by random noise before "
    "it left, so much that nobody can tell with certainty whether any one record was used.",
    "client": "Records stayed at their clients. What a client changed went to a trusted server, "
    "which blurred the sum by random noise before anybody else saw the model, so much that nobody "
    "else can tell with certainty whether any one client took part.",
}


def warning(statement: PrivacyStatement | None) -> str:
    """Why there is no differential privacy; empty if there is."""
    if statement is None:
        return NO_PRIVACY
    if is_seeded(statement):
        return SEEDED
    return "" if statement.private and math.isfinite(statement.largest_epsilon()) else NO_NOISE


def is_seeded(statement: PrivacyStatement | None) -> bool:
    """Whether the noise can be drawn again by whoever has the seed."""
    return statement is not None and statement.mechanism.get("source") == "seed"


def in_short(statement: PrivacyStatement | None) -> str:
    """The rest of the sentence that tells what a run did."""
    if statement is None:
        return "there was no differential privacy"
    bound = _bound(statement)
    if is_seeded(statement):
        return (
            f"it is NOT PRIVATE: its noise came from a seed ({bound} would hold with secret noise)"
        )
    if warning(statement):
        return "its noise is too small for any differential privacy"
    return f"every {noun(statement)} is protected with {bound} for the whole run"


def in_plain_words(statement: PrivacyStatement) -> list[str]:
    """What a privacy officer should know first, a paragraph each; none if nothing is promised."""
    if warning(statement):
        return []
    one, odds = noun(statement), math.exp(min(statement.largest_epsilon(), 50.0))
    paragraphs = [
        ORIGINS.get(statement.unit, ""),
        f"How strong that is: the chance of anything that somebody could conclude from all that "
        f"was released, with and without one {one}, differs by a factor of at most "
        f"{_factor(odds)}, apart from δ = {number_text(statement.target_delta)}. "
        f"The factor is e to the power of ε = {epsilon_text(statement.largest_epsilon())}.",
    ]
    if "at_most" in statement.recognition:
        paragraphs.append(_recognition(statement))
    return paragraphs


def guarantee(statement: PrivacyStatement) -> list[tuple[str, str]]:
    """Everything that an epsilon means nothing without: pairs of a term and its explanation."""
    return [(term, text) for term, text in _terms(statement) if text]


def noun(statement: PrivacyStatement) -> str:
    """What one unit is called."""
    return NOUNS.get(statement.unit, statement.unit)


def _terms(statement: PrivacyStatement) -> Iterator[tuple[str, str]]:
    one = noun(statement)
    unit = PROTECTED.get(statement.unit, statement.unit)
    relation = RELATIONS.get(statement.relation, "as the relation says").format(noun=one)
    yield "What is hidden", f"{_capital(unit)} (privacy unit: {statement.unit})."
    yield "Neighbouring data", f"{_capital(relation)} (relation: {statement.relation})."
    if not warning(statement):
        yield "From whom", _sentence(statement.adversary)
        yield "Who is trusted", _sentence(statement.trust_model)
    yield "How messages went", " ".join(map(_sentence, statement.transport))
    yield "Who accepted", _accepted(statement)
    yield "Guarantee", _budget(statement)
    yield "Federation", _overall(statement)
    yield "Not heard", _unheard(statement)
    crowd = "cohort" if statement.unit == "client" else "batch"
    yield "Sampling", f"{_sentence(statement.sampling)} An empty {crowd} still takes a noised step."
    yield "Clipping", _clipping(statement)
    yield "Isolation", _isolation(statement)
    yield "Noise", _sentence(statement.noise)
    yield "Accountant", f"{statement.accountant}; every executed step is charged."
    yield "Cross-check", _sentence(statement.cross_check)
    yield "Other runs", _lifetime(statement)


def _accepted(statement: PrivacyStatement) -> str:
    """Which sites take part, by what they said; empty in a simulation."""
    told = statement.federation
    if not told:
        return ""
    sites = (
        f"{name} {site['accepted']}, with {site['num_examples']:,} records declared, policy "
        f"{site['policy'][:DIGITS]}... and silotune {site['versions'].get('silotune', '(unknown)')}"
        for name, site in told["sites"].items()
    )
    return (
        f"The offer {told['offer'][:DIGITS]}... of {told['coordinator']}, with terms "
        f"{told['terms'][:DIGITS]}... (beginnings of SHA-256): {'; '.join(sites)}."
    )


def _unheard(statement: PrivacyStatement) -> str:
    """Whose charges are presumed; empty if all have told theirs."""
    parts = [
        f"{name} ({_last_heard(silo)})" for name, silo in statement.silos.items() if silo.presumed
    ]
    if not parts:
        return ""
    return (
        f"{', '.join(parts)}: whatever it was asked for since, and has told no charge for, counts "
        "as charged once, so that its ε is an upper bound."
    )


def _last_heard(silo: SiloPrivacy) -> str:
    return "never heard" if silo.last_heard is None else f"last heard: round {silo.last_heard}"


def _clipping(statement: PrivacyStatement) -> str:
    norm = number_text(statement.max_grad_norm)
    if statement.unit == "client":
        return (
            "What each client changes in a round, over all shared numbers together, to a Euclidean "
            f"norm of S = {norm}{_adaptive(statement)}."
        )
    return (
        f"Each record's gradient, over all trained numbers together, to a Euclidean norm of "
        f"C = {norm}."
    )


def _isolation(statement: PrivacyStatement) -> str:
    """Whether a record's gradient depends on others; empty where that was not looked at."""
    found = statement.coupling
    if not found:
        return ""
    if found.get("together") == 1:
        return (
            "Records go through the model one by one, so that the gradient of one depends on no "
            f"other.{_why_apart(found)}"
        )
    return (
        f"At most {count_text(int(found['together']), 'record')} go through the model at once. On "
        f"made-up records, before the run, the sum of {int(found['others'])} others moved by "
        f"{number_text(found['moved'])} C when one of full length was computed beside them, and by "
        f"{number_text(found['moved_at_large'])} C at factors of norm "
        f"{number_text(found['large_norm'])}: rounding, measured on one machine and not bounded."
    )


def _why_apart(coupling: Mapping[str, float]) -> str:
    moved = coupling.get("moved_if_together", 0.0)
    return f" Together, one would move by up to {number_text(moved)} C." if moved else ""


def _adaptive(statement: PrivacyStatement) -> str:
    adaptive = statement.mechanism.get("clipping") == "adaptive"
    return (
        " at first; later S follows a noisy count, which is part of the price" if adaptive else ""
    )


def _bound(statement: PrivacyStatement) -> str:
    delta = number_text(statement.target_delta)
    return f"ε ≤ {epsilon_text(statement.largest_if_secret())} at δ = {delta}"


def _budget(statement: PrivacyStatement) -> str:
    figures = _bound(statement).replace(" at", ",")
    if warning(statement):
        return f"None. The accountant's figures, {figures}, would hold with secret noise only."
    text = f"(ε, δ)-differential privacy with {figures}, for the whole run"
    if statement.target_epsilon is None:
        return f"{text}."
    budget = number_text(statement.target_epsilon)
    of = "each silo" if statement.unit == "example" else f"every {noun(statement)}"
    return f"{text}; the budget of {of} was ε = {budget}."


def _overall(statement: PrivacyStatement) -> str:
    epsilon = statement.overall.get("epsilon")
    if epsilon is None or warning(statement):
        return ""
    condition = statement.overall.get("holds_if", "records are disjoint by origin")
    return f"ε = {epsilon_text(epsilon)} over all silos together if {condition.removesuffix('.')}."


def _lifetime(statement: PrivacyStatement) -> str:
    """What all runs on the same records cost, as far as silos' books know."""
    if statement.lifetime == AT_SITES:
        return "They add up; each site keeps its own book, which nobody else sees."
    if statement.lifetime != RECORDED:
        return "They add up, and no book is kept of them."
    lives = [silo.lifetime for silo in statement.silos.values() if silo.lifetime]
    if not lives:
        return "They add up; the silos' books for life keep count."
    epsilons = [life.get("epsilon") for life in lives]
    most = max(math.inf if epsilon is None else epsilon for epsilon in epsilons)
    runs = max(life.get("runs", 1) for life in lives)
    delta = number_text(statement.target_delta)
    return (
        f"They add up: ε ≤ {epsilon_text(most)} at δ = {delta} over {count_text(runs, 'run')}, as "
        "far as the silos' books for life know of runs on records from the same declared place."
    )


def _recognition(statement: PrivacyStatement) -> str:
    one, seen = noun(statement), statement.recognition
    return (
        f"What no attack can exceed: somebody who knows all other {one}s, and who wrongly suspects "
        f"{_percent(seen['false_alarms'])} of those that were not used, recognises at most "
        f"{_percent(seen['at_most'])} of those that were."
    )


def _factor(odds: float) -> str:
    """Rounded up, as it is an upper bound."""
    if odds < 10:
        return f"{math.ceil(100 * odds) / 100:.2f}"
    return f"{math.ceil(odds):,}" if odds < 1e6 else "a million and more"


def _percent(share: float) -> str:
    """Rounded up, and never broken before its sign."""
    return f"{math.ceil(1000 * share - 1e-9) / 10:g}\u00a0%"


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _sentence(text: str) -> str:
    return f"{_capital(text).removesuffix('.')}." if text else ""
