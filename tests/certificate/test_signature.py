"""Signatures of a certificate and of ledgers: what they end, and what is refused by name."""

import json
import shutil
import stat
from pathlib import Path

import pytest

from by_config import verify as plain
from certificate.test_attacks import rebind_files, rebind_record, tamper
from federation.small import charge_again
from silotune.certificate.signature import public_key, sign
from silotune.certificate.verify import Demands, verify
from silotune.core import RecordError
from silotune.core.files import read_json, write_json
from silotune.privacy.ledger.ledger import Ledger
from silotune.runs.privacy_statement import read_certificate

SILOS = ("east", "west")


def signed(run: Path, *silos: str) -> dict[str, str]:
    """Public keys of silos that sign now."""
    keys = {}
    for silo in silos or SILOS:
        home = run / "sites" / silo
        ledger = Ledger(home / "ledger.jsonl")
        ledger.follow()
        said = read_certificate(run / "privacy.json")
        keys[silo] = sign(run / "privacy.json", said, silo, home, ledger.chain)
    return keys


def findings(run: Path, **demands) -> str:
    found = verify(run, None, Demands(**demands))
    return "\n".join(f"{f.where}: {f.text}" for f in found.findings)


def test_a_signed_run_is_verified_with_the_keys_of_its_silos(finished, tmp_path):
    keys = signed(finished)
    found = verify(finished, None, Demands(keys=keys, everybody=True))
    assert found.findings == ()
    assert found.signed == SILOS
    assert not any("wrote all of them anew" in limit for limit in found.limits)
    assert any("that a key belongs to whom you had it from" in limit for limit in found.limits)
    shutil.copy(finished / "privacy.json", tmp_path / "privacy.json")
    shutil.copytree(finished / "signatures", tmp_path / "signatures")
    alone = verify(tmp_path / "privacy.json", None, Demands(keys=keys))
    assert alone.signed == SILOS, "what is handed on can be verified by itself"


def test_keys_that_came_with_the_files_prove_no_silo(finished):
    signed(finished)
    limits = plain(finished).limits
    assert any("the keys came with the files" in limit for limit in limits)


def test_without_a_signature_everything_is_said_to_be_forgeable(finished):
    limits = plain(finished).limits
    assert any("wrote all of them anew" in t and "east, west have not signed" in t for t in limits)
    signed(finished, "east")
    assert any("west has not signed" in limit for limit in plain(finished).limits)


def test_a_key_is_for_its_owners_eyes_and_is_kept(finished):
    first = signed(finished, "east")
    key = finished / "sites" / "east" / "signing.key"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert signed(finished, "east") == first
    assert signed(finished, "west")["west"] != first["east"]
    public = (finished / "signatures" / "east.json").read_bytes()
    assert key.read_bytes() not in public
    assert key.read_bytes().hex().encode() not in public


def test_a_missing_signature_is_refused_where_it_is_demanded(finished):
    assert findings(finished) == ""
    assert "signature of east: is missing" in findings(finished, everybody=True)
    keys = signed(finished, "east")
    said = findings(finished, everybody=True)
    assert "signature of west: is missing" in said
    assert "signature of east" not in said
    assert findings(finished, keys=keys) == ""
    assert "signature of west: is missing" in findings(finished, keys={"west": keys["east"]})
    assert "signature of north: was asked for" in findings(finished, keys={"north": keys["east"]})


def test_another_key_is_refused(finished):
    keys = signed(finished)
    swapped = {"east": keys["west"], "west": keys["east"]}
    said = findings(finished, keys=swapped)
    assert "signature of east: is by another key than" in said
    assert "signature of west: is by another key than" in said


def test_a_signature_of_another_account_is_refused(finished):
    keys = signed(finished)
    place = finished / "signatures"
    shutil.copy(place / "west.json", place / "east.json")
    said = findings(finished, keys={"east": keys["west"]})
    assert "signature of east: is of another account: west, and here it is east" in said


@pytest.mark.parametrize("field", ["signature", "key", "statement"])
def test_a_signature_that_does_not_hold_is_refused(finished, field):
    signed(finished)
    file = finished / "signatures" / "east.json"
    data = read_json(file)
    other = read_json(finished / "signatures" / "west.json")
    data[field] = other[field]
    write_json(file, data)
    assert "signature of east: does not hold" in findings(finished)


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.pop("key"),
        lambda data: data.update(key="zz"),
        lambda data: data.update(signature="?"),
        lambda data: data.update(signature=5),
        lambda data: data.update(statement=None),
    ],
)
def test_damage_is_a_finding(finished, damage):
    signed(finished)
    file = finished / "signatures" / "east.json"
    data = read_json(file)
    damage(data)
    file.write_text(json.dumps(data))
    assert "signature of east: " in findings(finished)


def test_a_certificate_that_was_written_anew_is_not_the_one_that_was_signed(finished):
    """Consistently, by somebody who owns every file but no key."""
    keys = signed(finished)
    rebind_record(finished)
    tamper(finished, lambda data: data.update(recognition={}))
    rebind_files(finished)
    said = findings(finished, keys=keys)
    assert "signature of east: is of another certificate" in said
    assert "signature of west: is of another certificate" in said


def test_nobody_signs_what_their_own_ledger_does_not_say(finished):
    charge_again(finished / "sites" / "east" / "ledger.jsonl", 1)
    with pytest.raises(ValueError, match="is of 3 charges of east and its own ledger has 4"):
        signed(finished, "east")
    assert not (finished / "signatures").exists()


def test_a_damaged_key_is_not_replaced(finished):
    key = finished / "sites" / "east" / "signing.key"
    key.touch(0o600)
    key.write_bytes(b"short")
    with pytest.raises(RecordError, match="is no key of ours"):
        signed(finished, "east")
    assert key.read_bytes() == b"short"


def test_a_public_key_is_digits_or_a_file(finished):
    keys = signed(finished, "east")
    assert public_key(keys["east"].upper()) == keys["east"]
    assert public_key(str(finished / "signatures" / "east.json")) == keys["east"]
    for wrong in ("", "east", "12", "z" * 64):
        with pytest.raises(ValueError, match="is no public key"):
            public_key(wrong)


def test_nothing_claimed_is_nothing_signed(finished):
    write_json(finished / "privacy.json", {"unit": "none"})
    assert "signatures: are asked for" in findings(finished, everybody=True)
