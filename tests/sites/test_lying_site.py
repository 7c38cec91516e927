"""What one site sends in the place of an honest answer: the run leaves it out, or ends in words."""

import hashlib
import json
from dataclasses import replace

import pytest

import silotune as st
from covering import full
from federation.objects import SEEDED
from silotune.core import Meter, decode_result, encode_result
from silotune.engine import server
from silotune.federation.acceptance import SitesRefuseError
from silotune.privacy.ledger.noisy_counts import NoisyCount
from silotune.runtimes.messages import ACCEPTED, RESULT, lines_of, message, opened, with_lines
from sites.wire import OPEN, Wire, federation, wire

PRIVATE = st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3)
NOISY = replace(PRIVATE, count_noise=2.0, metric_noise=2.0)


def lying(folder, model, kind, lie):
    """Both sites; ``lie`` makes another answer of what west gives to an order of this kind."""

    class Lying(Wire):
        def carried(self, name, order):
            answer = super().carried(name, order)
            return lie(opened(answer)) if name == "west" and order[:1] == kind else answer

    courier = wire(folder, model, Lying)
    courier.allow("west", privacy=replace(OPEN, min_other_sites=0))
    courier.allow("east", privacy=replace(OPEN, min_other_sites=0))
    return courier


def fit(folder, model, courier, **changes):
    given = {"privacy": PRIVATE, "rounds": 1, "min_clients": 1, **changes}
    return federation(model, **given).fit(folder / "run", courier=courier, progress=False)


def head(kind, **changes):
    return lambda answer: message(kind, {**answer.head, **changes}, answer.body)


def lines(change):
    """Another ledger before the result."""

    def lie(answer):
        told, body = lines_of(answer)
        return message(RESULT, *with_lines(change(told), body))

    return lie


def result(change):
    """Another result behind the ledger."""

    def lie(answer):
        told, body = lines_of(answer)
        return message(RESULT, *with_lines(told, encode_result(change(decode_result(body)))))

    return lie


def charge(**changes):
    def change(told):
        line = json.loads(told)
        return json.dumps({**line, "charge": {**line["charge"], **changes}}).encode() + b"\n"

    return change


@pytest.mark.parametrize(
    "sizes",
    [
        {"num_examples": 10**400},
        {"num_examples": 10**10},
        {"num_held_out": 10**400},
        {"versions": {"torch": [[]]}},
    ],
    ids=["huge", "large", "held", "versions"],
)
def test_what_is_no_acceptance_begins_nothing(tmp_path, bert, sizes):
    courier = lying(tmp_path, bert, b"O", head(ACCEPTED, **sizes))
    with pytest.raises(SitesRefuseError, match="west: it answered something else than"):
        fit(tmp_path, bert, courier)


@pytest.mark.parametrize(
    "price",
    [{"kind": []}, {"kind": {}}, {"kind": "poisson", "steps": 10**400}, [], "x"],
    ids=str,
)
def test_what_is_no_price_begins_nothing(tmp_path, bert, price):
    courier = lying(tmp_path, bert, b"B", head(ACCEPTED, charge=price))
    with pytest.raises(SitesRefuseError, match="west: it computes another noise"):
        fit(tmp_path, bert, courier)


@pytest.mark.parametrize(
    "change",
    [
        lambda told: b"[" * 200_000 + b"\n",
        charge(kind=[]),
        charge(steps=10**400),
        charge(noise_multiplier=10**400),
        charge(noise_multiplier=1e300),
        charge(steps=10**9),
    ],
    ids=["deep", "kind", "steps", "noise", "much-noise", "many-steps"],
)
def test_a_ledger_that_no_site_writes(tmp_path, bert, change):
    """The update is left out; what was charged is asked for, and is not what was told."""
    courier = lying(tmp_path, bert, b"T", lines(change))
    run = fit(tmp_path, bert, courier)
    assert run.metrics[-1].missing == {
        "west": "the charges that it tells do not go on from those that it told before"
    }
    assert run.privacy.verify().ok


@pytest.mark.parametrize(
    "meters",
    ['["x", 1]', "[1, 2, 3]", "[1e999, 1]", "[NaN, 1]", "[true, 1]", "7", f"[1{400 * '0'}, 1]"],
)
def test_meters_that_are_no_numbers(tmp_path, bert, meters):
    def lie(answer):
        told, body = lines_of(answer)
        size = int.from_bytes(body[32:36], "big")
        text = body[36 : 36 + size].replace(
            b'"meters": {', b'"meters": {"x": ' + meters.encode() + b", "
        )
        rest = len(text).to_bytes(4, "big") + text + body[36 + size :]
        return message(RESULT, *with_lines(told, hashlib.sha256(rest).digest() + rest))

    run = fit(
        tmp_path, bert, lying(tmp_path, bert, b"T", lie), privacy=NOISY, weighting="num_examples"
    )
    assert run.metrics[-1].missing == {"west": "no answer in time"}


@pytest.mark.parametrize(
    "meters",
    [{"records": Meter(9e15, 1)}, {"records": Meter(19, 1e-9)}, {}, {"loss": Meter(1, 1)}],
    ids=["many", "count", "none", "another"],
)
def test_a_number_of_records_that_its_ledger_does_not_have(tmp_path, bert, meters):
    courier = lying(tmp_path, bert, b"T", result(lambda r: replace(r, meters=meters)))
    run = fit(tmp_path, bert, courier, privacy=NOISY, weighting="num_examples")
    assert run.metrics[-1].missing == {"west": "its numbers are not those in its ledger"}
    assert run.metrics[-1].clients == ("east",)


def test_a_number_of_records_that_is_in_its_ledger_and_made_up(tmp_path, bert, monkeypatch):
    """It fits everything that a site tells, and weighs no more than twice what was declared."""
    weights, weigh, noisy = {}, server._weight, NoisyCount.noisy
    drawn = iter([9 * 10**15])

    def heard(result, experiment):
        weights[result.client] = weigh(result, experiment)
        return weights[result.client]

    monkeypatch.setattr(server, "_weight", heard)
    monkeypatch.setattr(NoisyCount, "noisy", lambda *given: next(drawn, None) or noisy(*given))
    courier = lying(tmp_path, bert, b"-", None)
    run = fit(tmp_path, bert, courier, privacy=NOISY, weighting="num_examples")
    assert run.metrics[-1].clients == ("east", "west")
    assert max(weights.values()) == 40


def test_a_number_of_records_without_a_ledger(tmp_path, bert):
    """Without privacy nothing is charged, so no number is due."""
    lie = result(lambda r: replace(r, meters={"x": Meter(1, 1)}))
    run = fit(tmp_path, bert, lying(tmp_path, bert, b"T", lie), privacy=st.NoDP())
    assert run.metrics[-1].missing == {"west": "its numbers are not those in its ledger"}


@pytest.mark.parametrize(
    "score", [Meter(1e9, 2), full(Meter(2, 1e-9)), full(Meter(2, 1e9))], ids=str
)
def test_a_score_that_is_not_the_one_in_its_ledger(tmp_path, bert, score):
    """It counts as little as none, also from a site that says that it refused."""
    scores, lied = [], {"meters": {"accuracy": score}}
    for i, changes in enumerate([{"meters": {}}, lied, {**lied, "refusal": "no"}]):
        place = tmp_path / str(i)
        place.mkdir()
        lie = result(lambda r, changes=changes: replace(r, **changes))
        courier = lying(place, bert, b"S", lie)
        run = fit(place, bert, courier, privacy=replace(SEEDED, metric_noise=0.1))
        scores.append(run.metrics[-1].metrics["accuracy"])
    assert scores[1:] == scores[:1] * 2


@pytest.mark.parametrize(
    "text", ["my patient is Ann", "\x1b[2Jits budget", "its training broke down: 7"]
)
def test_a_site_has_no_words_of_its_own(tmp_path, bert, text):
    lie = result(lambda r: replace(r, refusal=text, sealed=b""))
    run = fit(tmp_path, bert, lying(tmp_path, bert, b"T", lie), privacy=st.NoDP())
    assert run.metrics[-1].missing == {"west": "it refused"}
    written = [f for f in (tmp_path / "run").rglob("*") if f.suffix in (".json", ".jsonl", ".html")]
    assert written
    assert not any(text.encode() in file.read_bytes() for file in written)
