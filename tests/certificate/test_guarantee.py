"""What a certificate promises in sentences, and that nothing is promised where nothing holds."""

import math
from dataclasses import replace

import pytest

from reports.clinics import facts, rounds, seeded, statement, summary
from silotune.certificate.guarantee import (
    NO_NOISE,
    NO_PRIVACY,
    SEEDED,
    guarantee,
    in_plain_words,
    in_short,
    warning,
)
from silotune.reports.prose import what_was_done
from silotune.reports.totals import outcome


def said(about):
    return dict(guarantee(about))


def test_the_guarantee_never_leaves_out_a_term():
    assert list(said(statement())) == [
        "What is hidden",
        "Neighbouring data",
        "From whom",
        "Who is trusted",
        "Guarantee",
        "Federation",
        "Sampling",
        "Clipping",
        "Noise",
        "Accountant",
        "Cross-check",
        "Other runs",
    ]


def test_a_warning_for_every_way_to_have_no_privacy():
    (silo, *_) = statement().silos.values()
    lost = replace(statement(), silos={"north": replace(silo, epsilon=math.inf)})
    assert warning(statement()) == ""
    assert warning(None) == NO_PRIVACY
    assert warning(lost) == NO_NOISE
    assert warning(seeded()) == SEEDED
    assert warning(replace(statement(), private=False)), "whatever else it says"


def test_epsilon_without_bound_is_never_called_protection():
    (silo, *_) = statement().silos.values()
    lost = replace(statement(), silos={"north": replace(silo, epsilon=math.inf)})
    done = what_was_done(summary(), facts(), outcome(rounds(), "accuracy"), lost)
    assert "protected" not in done
    assert "its noise is too small for any differential privacy" in done


def test_seeded_noise_promises_nothing():
    assert "protected" not in in_short(seeded())
    assert "NOT PRIVATE" in in_short(seeded())
    assert in_plain_words(seeded()) == []
    text = said(seeded())
    assert text["Guarantee"] == (
        "None. The accountant's figures, ε ≤ 5.98, δ = 1e-5, would hold with secret noise only."
    )
    assert {"From whom", "Who is trusted", "Federation"}.isdisjoint(text)


@pytest.mark.parametrize(
    ("relation", "words"),
    [
        ("add-remove", "if one is the other plus one record"),
        ("zero-out", "one that gives nothing but keeps its place"),
        ("replace-one", "any other record"),
    ],
)
def test_every_relation_is_said(relation, words):
    text = said(replace(statement(), relation=relation))["Neighbouring data"]
    assert words in text
    assert f"(relation: {relation})" in text


def test_a_client_is_not_called_a_record():
    clients = replace(statement(), unit="client", mechanism={"clipping": "adaptive"})
    text = said(clients)
    assert "One client as a whole" in text["What is hidden"]
    assert "plus one client" in text["Neighbouring data"]
    assert "S = 1 at first" in text["Clipping"]
    assert text["Sampling"].endswith("An empty cohort still takes a noised step.")
    assert "trusted server" in in_plain_words(clients)[0]
    assert "every client is protected" in in_short(clients)


def test_an_unknown_unit_is_not_called_a_record():
    other = replace(statement(), unit="patient", relation="group")
    text = said(other)
    assert text["What is hidden"] == "Patient (privacy unit: patient)."
    assert "plus one record" not in text["Neighbouring data"]
    assert "every patient" in in_short(other)


def test_bounds_are_rounded_up_for_people():
    plain = in_plain_words(statement())
    assert "a factor of at most 396," in plain[1]  # exp(5.98) = 395.4
    assert "at most 18.3\u00a0%" in plain[2]
    (silo, *_) = statement().silos.values()
    small = replace(statement(), silos={"north": replace(silo, epsilon=0.101)})
    assert "at most 1.11," in in_plain_words(small)[1]  # exp(0.101) = 1.1063
    assert len(in_plain_words(replace(statement(), recognition={}))) == 2


def test_texts_of_the_statement_end_once():
    ended = replace(statement(), adversary="nobody.", sampling="Poisson.", trust_model="")
    text = said(ended)
    assert text["From whom"] == "Nobody."
    assert text["Sampling"].startswith("Poisson. An")
    assert "Who is trusted" not in text
