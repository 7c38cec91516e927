"""Every word of certificates, pinned: each is a claim, so that a change is to be read.

After a change that is meant, delete ``sentences.json`` and run this file: it fails once, writes it
afresh, and the diff says what is claimed now.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from by_config import open_federation
from federation.small import chain_of, small
from silotune.certificate.circumstances import Circumstances
from silotune.certificate.client_wording import CLIENT as CLIENT_WORDS
from silotune.certificate.example_wording import EXAMPLE as EXAMPLE_WORDS
from silotune.certificate.grounds import Grounds
from silotune.certificate.statement import statement
from silotune.certificate.transports import TRANSPORTS, carried
from silotune.engine import EVERY_CLIENT
from silotune.privacy import LedgerEntry

PINNED = Path(__file__).with_name("sentences.json")
GRID = 1e-2
EXAMPLE = {"unit": "example", "noise_multiplier": 2, "target_delta": 1e-3}
CLIENT = {**EXAMPLE, "unit": "client", "max_update_norm": 0.5}
TURNS = {"sampling": "rotation", "noise": "correlated"}
CASES = {
    "poisson": EXAMPLE,
    "gaussian": {**EXAMPLE, "noise": "gaussian"},
    "truncated": {**EXAMPLE, "sampling": "truncated-poisson", "relation": "zero-out"},
    "replaced": {**EXAMPLE, "relation": "replace-one"},
    "correlated": {**EXAMPLE, **TURNS},
    "seeded": {**EXAMPLE, "insecure_seeded_noise": True},
    "hardly any noise": {**EXAMPLE, "noise_multiplier": 0.001},
    "count": {**EXAMPLE, "count_noise": 5},
    "clients": {**CLIENT, "client_sampling_rate": 0.5},
    "all clients": CLIENT,
    "clients in turn": {**CLIENT, **TURNS, "client_sampling_rate": 0.5, "bands": 2},
    "clients, seeded": {**CLIENT, "client_sampling_rate": 0.5, "insecure_seeded_noise": True},
    "clients, adaptive": {**CLIENT, "client_sampling_rate": 0.5},
}
"""Name -> the section of the configuration."""

PLAIN = Circumstances()
CIRCUMSTANCES = {
    "plain": PLAIN,
    "all": Circumstances(
        baselines=("local", "pooled"),
        limited=True,
        dealt=True,
        composed=True,
        counted=("num_examples", "num_held_out"),
    ),
}


@pytest.mark.parametrize(
    ("case", "evaluation"),
    [*((case, "simulation") for case in CASES), ("poisson", "site"), ("clients", "site")],
)
def test_a_certificate_says_what_it_always_said(place, case, evaluation):
    """All of it but versions; and what it says of circumstances, besides."""
    said = sentences(place, case, evaluation)
    assert said == pinned(f"{case}, {evaluation}", said)


def pinned(name, said):
    """What is pinned under a name; where nothing is, it is now, and fails once."""
    known = json.loads(PINNED.read_text(encoding="utf-8")) if PINNED.exists() else {}
    if name not in known:
        text = json.dumps(known | {name: said}, indent=1, ensure_ascii=False, sort_keys=True)
        PINNED.write_text(text + "\n", encoding="utf-8")
        pytest.fail(f"{name}: nothing is pinned; it is now")
    return known[name]


@pytest.mark.parametrize("kind", sorted(TRANSPORTS))
def test_it_says_what_each_transport_shows_whom(kind):
    said = {unit: carried(unit, [kind]) for unit in ("example", "client")}
    assert said == pinned(f"transport, {kind}", said)


@pytest.mark.parametrize("words", [EXAMPLE_WORDS, CLIENT_WORDS], ids=["example", "client"])
def test_texts_have_no_labels(words):
    """Of a language model it is said how texts become tokens, and nothing of labels."""
    kinds = {"sampling": "poisson", "noise": "gaussian"}
    texts, labelled = (
        [
            *words.released(kinds, grounds),
            *words.not_covered(kinds, grounds, together=True),
        ]
        for grounds in (Grounds(labelled=False), Grounds())
    )
    assert not [sentence for sentence in texts if "label" in sentence]
    assert [
        sentence for sentence in texts if "the tokenizer and, of chats, the template" in sentence
    ]
    assert len([sentence for sentence in labelled if "label" in sentence]) == 2


def sentences(place, case, evaluation):
    config = small(
        place,
        f"privacy={json.dumps(CASES[case])}",
        "data.num_examples={east: 20, west: 20}",
        f"evaluation={evaluation}",
        *(["train.weighting=uniform"] if CASES[case]["unit"] == "client" else []),
    )
    agreement = open_federation(config).agreement
    if "adaptive" in case:  # two clients are too few for it; the words are the same
        terms = agreement.terms
        adaptive = replace(terms, privacy=replace(terms.privacy, adaptive_clipping=True))
        agreement = replace(agreement, terms=adaptive)
    accounts = [EVERY_CLIENT] if agreement.server.private else list(agreement.sizes)
    chains = {name: chain_of(ledger(name, agreement.price(name))) for name in accounts}
    plain, all_of_them = (
        statement(agreement, circumstances, "run", chains, grid=GRID)
        for circumstances in CIRCUMSTANCES.values()
    )
    return {"plain": words(plain), "changed": changed(words(plain), words(all_of_them))}


def ledger(silo, charge):
    one = LedgerEntry(
        run="run",
        silo=silo,
        round=0,
        attempt=0,
        release="update",
        charge=charge,
        max_grad_norm=1.0,
        time="2026-01-01T00:00:00+00:00",
    )
    return [one, replace(one, round=1), replace(one, round=1, attempt=1)]


def words(certificate):
    """The certificate without versions and what machines measure; numbers to six digits, as they
    differ beyond."""
    data = certificate.to_json()
    del data["versions"], data["coupling"]
    for silo in data["silos"].values():
        del silo["head"]  # it follows from every digit of sigma
    counted = " (by the algorithms of dp-accounting "
    accountant, bracket, rest = data["accountant"].partition(counted)
    data["accountant"] = accountant + bracket + rest.partition(")")[2]
    return json.loads(json.dumps(data), parse_float=lambda text: float(f"{float(text):.6g}"))


def changed(before, after):
    return {key: after[key] for key in after if after[key] != before[key]}
