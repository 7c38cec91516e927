"""A coordinator changes its key: no site takes another one silently, and no crash loses anybody."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from runtimes.small_keys import small_keys
from silotune.core.files import write_json
from silotune.federation import rotation
from silotune.federation.admission import Request, Rotation
from silotune.federation.members import Members
from silotune.keys import LetterError, fingerprint, letters, public_of
from silotune.keys.letters import read_small
from silotune.runtimes.nvflare_kits import Address
from silotune.site.flare import own_kit, write_own_kit
from silotune.site.home import Home
from silotune.site.membership import (
    accept_admission,
    accept_rotation,
    answer_invitation,
    membership,
    own_admission,
    rotated,
)

__all__ = ["small_keys"]


@pytest.fixture
def members(tmp_path, small_keys) -> Members:
    server = Address("localhost", 8002)
    made = Members.create(tmp_path / "north", ["a", "b", "c", "d"], "lead", server)
    for site in "abc":
        home = tmp_path / site
        write_json(home.parent / "letter", answer_invitation(home, made.invite(site)))
        admission = made.approve(Request.read(home.parent / "letter"))
        write_json(home.parent / "letter", admission.signed(made.key))
        accept_admission(home, home.parent / "letter")
    made.invite("d")
    made.revoke("c")
    return made


@pytest.fixture
def home(tmp_path) -> Path:
    return tmp_path / "a"


def taken(home: Path, letter: Path) -> None:
    """As a person takes it who has compared its key."""
    key = json.loads(Rotation.read(letter).admission)["coordinator_key"]
    accept_rotation(home, letter, fingerprint(key))


def test_the_key_that_is_compared_is_the_key_that_is_taken(members, home, monkeypatch):
    """Whoever can write the letter may put another in its place meanwhile."""
    first, reads = members.rotate()["a"], []
    monkeypatch.setattr(letters, "read_small", lambda path: reads.append(path) or read_small(path))
    before = membership(home).coordinator
    with pytest.raises(LetterError, match="is not the one that was told; nothing is changed"):
        accept_rotation(home, first, fingerprint(before))
    assert membership(home).coordinator == before
    reads.clear()
    new = json.loads(json.loads(first.read_text())["admission"])["coordinator_key"]
    accept_rotation(home, first, fingerprint(new).upper())
    assert membership(home).coordinator == new
    assert reads.count(first) == 1


def states(members: Members) -> dict[str, str]:
    return {s.site: s.state for s in Members.open(members.folder).standings()}


def test_members_stay_and_take_the_new_key_when_a_person_has_compared_it(members, home):
    old, before = public_of(members.key), own_admission(home)
    kit = own_kit(Home(home))
    told = members.rotate()
    assert set(told) == {"a", "b"}
    new = public_of(Members.open(members.folder).key)
    assert new != old
    assert states(members) == {"a": "admitted", "b": "admitted", "c": "revoked", "d": "over"}
    assert members.public_keys()["a"] == before.site_key
    assert rotated(home, told["a"]).coordinator_key == new
    assert membership(home).coordinator == old, "looking changes nothing"
    taken(home, told["a"])
    assert membership(home).coordinator == new
    assert own_admission(home).root == members.flare.root.certificate != before.root
    assert own_admission(home).expires == before.expires
    write_own_kit(Home(home))
    assert own_kit(Home(home)) == kit
    members.flare.server()
    members.flare.lead()


def test_one_after_the_other(members, home):
    first = members.rotate()["a"]
    second = members.rotate()["a"]
    assert first != second
    with pytest.raises(LetterError, match="is not by the coordinator that has admitted this site"):
        taken(home, second)
    taken(home, first)
    taken(home, second)
    assert membership(home).coordinator == public_of(members.key)
    with pytest.raises(LetterError, match="is not by the coordinator"):
        taken(home, first)


def test_a_letter_to_another_site_or_of_another_federation(members, home, tmp_path):
    letter = members.rotate()["b"]
    with pytest.raises(LetterError, match="is not by the coordinator"):
        taken(home, letter)
    with pytest.raises(LetterError, match="is not by the coordinator"):
        taken(tmp_path / "nobody", letter)


@pytest.mark.parametrize(
    "changes",
    [
        {"coordinator": "another"},
        {"expires": "2099-01-01T00:00:00+00:00"},
        {"site_key": "0" * 64},
        {"server": "elsewhere:1"},
        {"federation": "0" * 32},
    ],
)
def test_a_letter_that_changes_more_than_the_key(members, home, changes):
    old, letter = members.key, members.rotate()["a"]
    found = Rotation.read(letter)
    admission = replace(found.admitted("x"), **changes).signed(members.key)
    write_json(letter, replace(found, admission=json.dumps(admission)).signed(old))
    with pytest.raises(LetterError):
        taken(home, letter)
    assert membership(home).coordinator == public_of(old)


def test_a_letter_that_the_old_key_did_not_sign(members, home):
    letter = members.rotate()["a"]
    told = json.loads(letter.read_text())
    write_json(letter, Rotation.read(letter).signed(members.key) | {"old_key": told["old_key"]})
    with pytest.raises(LetterError, match="was altered after it was signed"):
        taken(home, letter)


class Crash(Exception):
    pass


@pytest.mark.parametrize("at", range(8))
def test_a_rotation_that_was_cut_short_is_brought_to_its_end(members, home, monkeypatch, at):
    """The process ends at any of the files that it puts in place."""
    real, seen = os.replace, []

    def counted(source, target):
        if len(seen) == at:
            raise Crash
        seen.append(target)
        real(source, target)

    old = public_of(members.key)
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", counted)
        try:
            members.rotate()
        except Crash:
            pass
        else:
            pytest.fail("it was to be cut short")
    again = Members.open(members.folder)
    assert states(members) == {"a": "admitted", "b": "admitted", "c": "revoked"} | {
        "d": "over" if at else "invited"
    }
    assert (public_of(again.key) == old) is (at == 0)
    again.flare.server()
    if at:
        taken(home, rotation.newest(members.folder, "a"))
        assert membership(home).coordinator == public_of(again.key)
        assert not (members.folder / rotation.JOURNAL).exists()


def test_a_federation_without_a_server(tmp_path):
    members = Members.create(tmp_path / "south", ["a"])
    home = tmp_path / "home"
    write_json(tmp_path / "letter", answer_invitation(home, members.invite("a")))
    admission = members.approve(Request.read(tmp_path / "letter"))
    write_json(tmp_path / "letter", admission.signed(members.key))
    accept_admission(home, tmp_path / "letter")
    taken(home, members.rotate()["a"])
    assert membership(home).coordinator == public_of(members.key)
    assert not (members.folder / "nvflare").exists()
