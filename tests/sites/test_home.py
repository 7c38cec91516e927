"""A site's folder is its owner's alone, and a person's word is bound to one offer."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest

import silotune.site.home as home_module
from silotune.core.files import DamagedError, RecordError
from silotune.federation.offer import OfferError
from silotune.privacy import Charge, LedgerEntry
from silotune.privacy.ledger.ledger import Ledger
from silotune.site.approval import Approval, hindrance
from silotune.site.home import Home
from sites.offers import offer, policy, terms

EACH = policy()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    tmp_path.chmod(0o700)
    return Home(tmp_path / "home")


def test_everything_is_for_the_owner_alone(home: Home) -> None:
    before = os.umask(0)
    try:
        home.keep(offer().to_bytes())
        home.decide(offer(), "approved")
        home.opened_run("r1")
    finally:
        os.umask(before)
    modes = {p.relative_to(home.path): stat.S_IMODE(p.stat().st_mode) for p in home.path.rglob("*")}
    files = {Path("offers/r1.json"), Path("approvals/r1.json")}
    assert {path for path, mode in modes.items() if mode == 0o600} == files
    assert all(mode == 0o700 for path, mode in modes.items() if path not in files)
    assert stat.S_IMODE(home.path.stat().st_mode) == 0o700
    assert home.opened_run("r1") == home.path / "runs" / "r1"


def test_an_offer_is_kept_byte_for_byte(home: Home) -> None:
    given = offer(title="Klinik M\u00fcnchen \u00b7 \u4e2d\u6587")
    assert home.keep(given.to_bytes()) == given
    assert (home.path / "offers" / "r1.json").read_bytes() == given.to_bytes()
    assert home.offer("r1") == given
    assert list(home.offers()) == [given]


def test_what_is_no_offer_is_not_kept(home: Home) -> None:
    with pytest.raises(OfferError):
        home.keep(b"{}")
    assert not home.path.exists()


@pytest.mark.parametrize("name", ["../../x", "", "a/b", ".", "a" * 65, "x\n"])
def test_no_name_leads_out_of_the_folder(home: Home, name: str) -> None:
    for call in (home.run, home.offer, home.approval, home.certificate):
        with pytest.raises(ValueError, match="run: a run's name"):
            call(name)


def test_an_offer_that_nobody_made(home: Home) -> None:
    with pytest.raises(RecordError, match="no such run was offered"):
        home.offer("r2")


def test_a_damaged_offer_is_named_and_hides_no_other(home: Home) -> None:
    home.keep(offer(run="a").to_bytes())
    home.keep(offer(run="b").to_bytes())
    (home.path / "offers" / "a.json").write_bytes(b"torn")
    (home.path / "offers" / "c.json").write_bytes(offer(run="b").to_bytes())
    found = list(home.offers())
    assert isinstance(found[0], DamagedError)
    assert found[1] == offer(run="b")
    assert "of another run" in str(found[2])


def test_nobody_fills_the_disk_with_offers(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(home_module, "MOST_OFFERS", 2)
    for run in ("b", "a", "c"):
        home.keep(offer(run=run).to_bytes())
    assert [kept.run for kept in home.offers()] == ["a", "c"]
    home.keep(offer(run="c", title="another").to_bytes())


def test_offers_without_end_push_out_nothing_that_was_said_or_done(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(home_module, "MOST_OFFERS", 3)
    for run in ("approved", "begun", "refused"):
        home.keep(offer(run=run).to_bytes())
    home.decide(home.offer("approved"), "approved")
    home.opened_run("begun")
    for number in range(5):
        home.keep(offer(run=f"r{number}").to_bytes())
    assert [kept.run for kept in home.offers()] == ["approved", "begun", "r4"]
    home.decide(home.offer("r4"), "refused")
    with pytest.raises(RecordError, match="holds 3 offers that were"):
        home.keep(offer(run="one-more").to_bytes())


def test_a_persons_word_is_bound_to_what_was_looked_at(home: Home) -> None:
    given = home.keep(offer().to_bytes())
    assert hindrance(EACH, given, home.approval("r1")) == "approval"
    home.decide(given, "approved")
    assert hindrance(EACH, given, home.approval("r1")) is None
    altered = home.keep(offer(terms(rounds=21)).to_bytes())
    assert hindrance(EACH, altered, home.approval("r1")) == "approval"
    again = home.keep(given.to_bytes())
    assert hindrance(EACH, again, home.approval("r1")) is None


@pytest.mark.parametrize(
    "altered",
    [
        offer(terms(eval_every=2)),
        offer(title="Triage of notes"),
        offer(base="1" * 64),
        offer(participants=("h1", "h2")),
        offer(versions={"silotune": "0.2"}),
        offer(began="2026-11-30T10:00:01+00:00"),
        replace(offer(), base_files="2" * 64),
    ],
)
def test_any_alteration_needs_another_word(home: Home, altered) -> None:
    said = home.decide(offer(), "approved")
    assert hindrance(EACH, altered, said) == "approval"


@pytest.mark.parametrize(
    "rules", [policy(), policy(approve="any"), policy(approve="listed", approved=(offer().digest,))]
)
def test_a_persons_refusal_counts_whatever_the_policy_is(home: Home, rules) -> None:
    said = home.decide(offer(), "refused")
    assert hindrance(rules, offer(), said) == "policy:approve"
    assert hindrance(rules, offer(), home.decide(offer(), "approved")) is None


def test_a_list_is_of_digests_and_any_is_any() -> None:
    listed = policy(approve="listed", approved=(offer().digest,))
    assert hindrance(listed, offer(), None) is None
    assert hindrance(listed, offer(title="another"), None) == "approval"
    assert hindrance(policy(approve="any"), offer(), None) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        json.dumps({"version": 1, "offer": "x", "decision": "approved", "time": "now"}).encode(),
        json.dumps({"version": 1, "offer": "0" * 64, "decision": "yes", "time": "now"}).encode(),
        json.dumps({"version": 1, "offer": "0" * 64, "decision": True, "time": "now"}).encode(),
    ],
)
def test_a_damaged_word_is_none(home: Home, content: bytes) -> None:
    home.decide(offer(), "approved")
    (home.path / "approvals" / "r1.json").write_bytes(content)
    with pytest.raises(DamagedError, match="say it again"):
        home.approval("r1")
    assert home.decide(offer(), "refused") == home.approval("r1")


def test_a_word_that_others_could_have_written_is_none(home: Home) -> None:
    home.decide(offer(), "approved")
    (home.path / "approvals" / "r1.json").chmod(0o666)
    with pytest.raises(RecordError, match="can be written by other users"):
        home.approval("r1")


def test_a_home_that_others_can_write_is_not_written(home: Home) -> None:
    home.path.mkdir()
    home.path.chmod(0o777)
    for call in (lambda: home.keep(offer().to_bytes()), lambda: home.decide(offer(), "approved")):
        with pytest.raises(RecordError, match="can be written by other users"):
            call()


def test_a_word_says_what_it_is() -> None:
    with pytest.raises(ValueError, match="decision"):
        Approval(offer="0" * 64, decision="maybe", time="")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="offer"):
        Approval(offer="0", decision="approved", time="")


def test_a_lost_book_does_not_look_like_nothing_spent(home: Home) -> None:
    assert home.spent() == []
    entry = LedgerEntry(
        run="r1",
        silo="h1",
        round=0,
        attempt=0,
        charge=Charge(0.1, 1.0, 3),
        max_grad_norm=1.0,
        time="",
    )
    ledger = Ledger(home.opened_run("r1") / "ledger.jsonl")
    ledger.follow()
    ledger.append(entry)
    with pytest.raises(DamagedError, match="r1 has charges"):
        home.spent()
    home.life.mkdir()
    with pytest.raises(ValueError, match="there is no book"):
        home.spent()


def test_what_was_shown_is_told_from_what_it_became(home: Home) -> None:
    given = home.keep(offer().to_bytes())
    assert not home.was_shown(given)
    home.note_shown(given)
    assert home.was_shown(given)
    altered = home.keep(offer(title="another").to_bytes())
    assert not home.was_shown(altered)
    assert not home.was_shown(offer(run="r2"))
