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
from silotune.keys import LetterError, public_of
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


def states(members: Members) -> dict[str, str]:
    return {s.site: s.state for s in Members.open(members.folder).standings()}


def test_members_stay_and_take_the_new_key_when_a_person_has_compared_it(members, home):
    old, before = public_of(members.key), own_admission(home)
    kit = own_kit(Home(home))
    letters = members.rotate()
    assert set(letters) == {"a", "b"}
    new = public_of(Members.open(members.folder).key)
    assert new != old
    assert states(members) == {"a": "admitted", "b": "admitted", "c": "revoked", "d": "over"}
    assert members.public_keys()["a"] == before.site_key
    assert rotated(home, letters["a"]).coordinator_key == new
    assert membership(home).coordinator == old, "looking changes nothing"
    accept_rotation(home, letters["a"])
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
        accept_rotation(home, second)
    accept_rotation(home, first)
    accept_rotation(home, second)
    assert membership(home).coordinator == public_of(members.key)
    with pytest.raises(LetterError, match="is not by the coordinator"):
        accept_rotation(home, first)


def test_a_letter_to_another_site_or_of_another_federation(members, home, tmp_path):
    letter = members.rotate()["b"]
    with pytest.raises(LetterError, match="is not by the coordinator"):
        accept_rotation(home, letter)
    with pytest.raises(LetterError, match="is not by the coordinator"):
        accept_rotation(tmp_path / "nobody", letter)


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
        accept_rotation(home, letter)
    assert membership(home).coordinator == public_of(old)


def test_a_letter_that_the_old_key_did_not_sign(members, home):
    letter = members.rotate()["a"]
    told = json.loads(letter.read_text())
    write_json(letter, Rotation.read(letter).signed(members.key) | {"old_key": told["old_key"]})
    with pytest.raises(LetterError, match="was altered after it was signed"):
        accept_rotation(home, letter)


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
        accept_rotation(home, rotation.newest(members.folder, "a"))
        assert membership(home).coordinator == public_of(again.key)
        assert not (members.folder / rotation.JOURNAL).exists()


def test_a_federation_without_a_server(tmp_path):
    members = Members.create(tmp_path / "south", ["a"])
    home = tmp_path / "home"
    write_json(tmp_path / "letter", answer_invitation(home, members.invite("a")))
    admission = members.approve(Request.read(tmp_path / "letter"))
    write_json(tmp_path / "letter", admission.signed(members.key))
    accept_admission(home, tmp_path / "letter")
    accept_rotation(home, members.rotate()["a"])
    assert membership(home).coordinator == public_of(members.key)
    assert not (members.folder / "nvflare").exists()
