"""From an invitation to a member: what each side is told, and every letter that is refused."""

import json
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from silotune.core import RecordError
from silotune.core.files import read_json, write_json
from silotune.federation.admission import Admission, Invitation, Request
from silotune.federation.kit import read_kit
from silotune.federation.members import Members
from silotune.keys import LetterError, letters, public_of, read_key
from silotune.runtimes import FolderCourier, answer_folder
from silotune.runtimes.folder import ORDER, about
from silotune.runtimes.signed_files import digest_of, write_signed
from silotune.site.membership import accept_admission, accept_kit, answer_invitation, membership

SITES = ["hosp-1", "hosp-2", "Straße 9"]


@pytest.fixture
def members(tmp_path) -> Members:
    found = Members.create(tmp_path / "north", SITES, "lead@coord.org")
    for site in found.sites:
        found.invite(site)
    return found


@pytest.fixture
def home(tmp_path) -> Path:
    return tmp_path / "home"


def invitation(members: Members, site="hosp-1") -> Path:
    return members.folder / "invitations" / f"{site}.invitation"


def asked(members: Members, home: Path, site="hosp-1") -> Request:
    """What the site sends, as the coordinator reads it."""
    told = answer_invitation(home, invitation(members, site))
    return Request.opened(json.loads(json.dumps(told)), "request")


def sent(members: Members, admission: Admission, place: Path) -> Path:
    write_json(place, admission.signed(members.key))
    return place


def joined(members: Members, home: Path, site="hosp-1") -> Admission:
    admission = members.approve(asked(members, home, site))
    return accept_admission(home, sent(members, admission, home.parent / "a"))


def states(members: Members) -> dict[str, str]:
    return {s.site: s.state for s in Members.open(members.folder).standings()}


def later(monkeypatch, days: int) -> None:
    """Every clock has gone on."""

    class Later(datetime):
        @classmethod
        def now(cls, zone=None):
            return datetime.now(zone) + timedelta(days=days)

    monkeypatch.setattr(letters, "datetime", Later)


def test_both_sides_end_with_each_others_key_and_no_private_one(members, home):
    admission = joined(members, home)
    me = membership(home)
    assert (me.federation, me.site) == (members.federation, "hosp-1")
    assert me.coordinator == public_of(members.key)
    assert members.public_keys() == {"hosp-1": me.public}
    assert admission.coordinator == "lead@coord.org"
    assert states(members) == {"hosp-1": "admitted", "hosp-2": "invited", "Straße 9": "invited"}
    keys = [f for f in (*members.folder.rglob("*"), *home.rglob("*")) if f.suffix == ".key"]
    assert len(keys) == 2
    for file in keys:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        secret = file.read_bytes()
        for other in (*members.folder.rglob("*"), *home.rglob("*"), home.parent / "a"):
            if other.is_file() and other != file:
                assert secret not in other.read_bytes()
                assert secret.hex().encode() not in other.read_bytes()


def test_what_is_done_twice_is_done_once(members, home):
    request = asked(members, home)
    assert asked(members, home) == request
    admission = members.approve(request)
    assert members.approve(request) == admission
    letter = sent(members, admission, home.parent / "a")
    assert accept_admission(home, letter) == accept_admission(home, letter) == admission


def test_nobody_else_answers_an_invitation_that_was_answered(members, home, tmp_path):
    members.approve(asked(members, home))
    with pytest.raises(LetterError, match="another key has answered the invitation of hosp-1"):
        members.approve(asked(members, tmp_path / "thief"))
    assert membership_key(members) == asked(members, home).site_key


def membership_key(members: Members, site="hosp-1") -> str:
    return members.public_keys()[site]


def test_a_new_invitation_changes_the_key_once_it_is_answered(members, home):
    before = joined(members, home)
    old = asked(members, home)
    Members.open(members.folder).invite("hosp-1")
    with pytest.raises(LetterError, match="answers an invitation that another has replaced"):
        members.approve(old)
    assert membership(home).public == before.site_key, "until there is another"
    after = joined(members, home)
    assert after.site_key != before.site_key
    assert membership(home).public == membership_key(members) == after.site_key
    assert len(list((home / "keys").glob("*.key"))) == 1
    late = sent(members, before, home.parent / "late")
    with pytest.raises(LetterError, match="no invitation was answered here"):
        accept_admission(home, late)


def test_an_admission_of_an_older_request_is_not_taken_for_the_new_one(members, home):
    old = members.approve(asked(members, home))
    members.invite("hosp-1")
    asked(members, home)
    with pytest.raises(LetterError, match="it is for another site or an older request"):
        accept_admission(home, sent(members, old, home.parent / "old"))


def test_a_new_site_can_be_invited_later(members, home):
    members.invite("hosp-4")
    again = Members.open(members.folder)
    joined(again, home, "hosp-4")
    assert membership_key(again, "hosp-4") == membership(home).public


def test_a_revoked_site_is_no_member_until_it_is_invited_again(members, home):
    request = asked(members, home)
    members.approve(request)
    members.revoke("hosp-1")
    members.revoke("hosp-1")
    assert members.public_keys() == {}
    assert states(members)["hosp-1"] == "revoked"
    with pytest.raises(LetterError, match="the membership of hosp-1 has ended; make another"):
        members.approve(request)
    members.invite("hosp-1")
    joined(members, home)
    assert states(members)["hosp-1"] == "admitted"
    for nobody in ("hosp-2", "hosp-9", "../federation"):
        with pytest.raises(ValueError, match="was not admitted"):
            members.revoke(nobody)


def test_dates_are_kept_by_both(members, home, monkeypatch):
    joined(members, home)
    later(monkeypatch, 31)
    assert states(members) == {"hosp-1": "admitted", "hosp-2": "over", "Straße 9": "over"}
    with pytest.raises(LetterError, match="could be answered until"):
        answer_invitation(home.parent / "b", invitation(members, "hosp-2"))
    later(monkeypatch, 366)
    assert states(members)["hosp-1"] == "over"
    assert members.public_keys() == {}
    with pytest.raises(LetterError, match="the admission of hosp-1 ended at"):
        membership(home)


def test_a_request_that_comes_too_late_is_refused(members, home, monkeypatch):
    request = asked(members, home)
    later(monkeypatch, 31)
    with pytest.raises(LetterError, match="the invitation of hosp-1 was open until"):
        members.approve(request)


def test_an_admission_that_comes_too_late_is_refused(members, home, monkeypatch):
    letter = sent(members, members.approve(asked(members, home)), home.parent / "a")
    later(monkeypatch, 366)
    with pytest.raises(LetterError, match="a: ended at"):
        accept_admission(home, letter)


# --- Letters that lie


def test_a_request_to_another_federation(members, home, tmp_path):
    other = Members.create(tmp_path / "south", SITES)
    other.invite("hosp-1")
    with pytest.raises(LetterError, match="asks another federation than south"):
        other.approve(asked(members, home))


def test_a_request_of_somebody_who_was_not_invited(members, home):
    key = Ed25519PrivateKey.generate()
    forged = replace(asked(members, home), site_key=public_of(key))
    for site in ("hosp-9", "hosp-2"):
        with pytest.raises(LetterError, match=r"was not invited|another has replaced"):
            members.approve(replace(forged, site=site))
    assert members.public_keys() == {}


def test_an_admission_by_another_coordinator(members, home, tmp_path):
    """It has read the invitation and the request, and wants to be obeyed."""
    request = asked(members, home)
    true = members.approve(request)
    thief = Ed25519PrivateKey.generate()
    own_key = tmp_path / "own"
    write_json(own_key, replace(true, coordinator_key=public_of(thief)).signed(thief))
    other_name = tmp_path / "name"
    write_json(other_name, replace(true, coordinator="head@coord.org").signed(members.key))
    not_its_own = tmp_path / "not-its-own"
    write_json(not_its_own, true.signed(thief))
    for letter, why in (
        (own_key, "by another than lead@coord.org"),
        (other_name, "by another than lead@coord.org"),
        (not_its_own, "was altered"),
    ):
        with pytest.raises(LetterError, match=why):
            accept_admission(home, letter)
    with pytest.raises(LetterError, match="is a member of no federation"):
        membership(home)


def test_an_admission_of_another_site(members, home, tmp_path):
    asked(members, home)
    other = members.approve(asked(members, tmp_path / "other", "hosp-2"))
    with pytest.raises(LetterError, match="does not answer what hosp-1 has asked"):
        accept_admission(home, sent(members, other, tmp_path / "a"))


def test_an_admission_of_a_key_that_is_not_here(members, home):
    letter = sent(members, members.approve(asked(members, home)), home.parent / "a")
    (key,) = (home / "keys").glob("*.key")
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes_raw())
    with pytest.raises(RecordError, match="is not the key that was admitted"):
        accept_admission(home, letter)
    key.unlink()
    with pytest.raises(RecordError, match="is missing; bring the key back"):
        accept_admission(home, letter)


def test_a_home_belongs_to_one_site_of_one_federation(members, home, tmp_path):
    other = Members.create(tmp_path / "south", SITES)
    other.invite("hosp-1")
    asked(members, home)
    for who, site in ((other, "hosp-1"), (members, "hosp-2")):
        with pytest.raises(LetterError, match="belongs to hosp-1 in the federation north"):
            asked(who, home, site)
    joined(members, home)
    with pytest.raises(LetterError, match="give each a home of its own"):
        asked(other, home)
    elsewhere = other.approve(asked(other, tmp_path / "elsewhere"))
    with pytest.raises(LetterError, match=r"in the federation north, and this is for .* in south"):
        accept_admission(home, sent(other, elsewhere, tmp_path / "b"))
    assert membership(home).federation == members.federation


def change(**values):
    return lambda told: told.update(values)


ALTERED = {
    "site": change(site="hosp-2"),
    "key": change(coordinator_key=public_of(Ed25519PrivateKey.generate())),
    "expires": change(expires="2999-01-01T00:00:00+00:00"),
    "signature": change(signature="A" * 86 + "=="),
}


@pytest.mark.parametrize("damage", ALTERED.values(), ids=ALTERED)
def test_an_altered_letter_is_told(members, home, damage):
    file = invitation(members)
    told = read_json(file)
    damage(told)
    write_json(file, told)
    with pytest.raises(LetterError, match=r"hosp-1\.invitation: was altered after it was signed"):
        answer_invitation(home, file)
    assert not home.exists()


DAMAGED = {
    "a field more": (change(more="1"), "other fields"),
    "a field less": (lambda told: told.pop("site"), "other fields"),
    "another kind": (change(purpose="silotune admission 1"), "is no invitation"),
    "no text": (change(site=5), "a field is no text"),
    "a path": (change(site="../etc"), "site: .* is no name that a folder can have"),
    "escapes": (change(coordinator="\x1b[2J"), "coordinator: .* is no name"),
    "no key": (change(coordinator_key="zz"), "is no public key"),
    "key with spaces": (
        lambda told: told.update(coordinator_key=f" {told['coordinator_key']}"),
        "coordinator_key: is no public key",
    ),
    "no date": (change(expires="tomorrow"), "expires: is no time"),
    "no zone": (change(expires="2999-01-01T00:00:00"), "expires: is no time"),
    "no base64": (change(signature="?"), "damaged"),
    "a newer version": (change(version=2), "written by a newer silotune"),
}


@pytest.mark.parametrize(("damage", "why"), DAMAGED.values(), ids=DAMAGED)
def test_what_is_no_letter_is_said_in_words(members, home, damage, why):
    file = invitation(members)
    told = read_json(file)
    damage(told)
    file.write_text(json.dumps(told))
    with pytest.raises(RecordError, match=why):
        answer_invitation(home, file)
    assert not home.exists()


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"5", b"\xff\xfe", b" " * 200_000, b"[" * 90_000]
)
def test_a_file_that_is_no_json(tmp_path, content):
    (tmp_path / "a").write_bytes(content)
    for kind in (Invitation, Request, Admission):
        with pytest.raises(RecordError, match="a: "):
            kind.read(tmp_path / "a")
    with pytest.raises(RecordError, match="a: "):
        read_kit(tmp_path / "a")


# --- The coordinator's folder


@pytest.mark.parametrize(
    ("sites", "why"),
    [
        ([], "there is none; name each"),
        (["a", "a"], "have the same name"),
        (["a", "A"], "differs by case"),
        (["../a"], "sites: '../a' cannot be the name"),
        ([""], "sites: '' cannot be the name"),
        (["a" * 101], "cannot be the name"),
        (["a\x1b[2J"], "cannot be the name"),
    ],
)
def test_names_that_are_none_are_refused_before_anything_is_written(tmp_path, sites, why):
    with pytest.raises(ValueError, match=why):
        Members.create(tmp_path / "north", sites)
    assert not (tmp_path / "north").exists()


def test_a_folder_in_use_and_one_that_is_none(tmp_path, members):
    with pytest.raises(RecordError, match="north: is not empty"):
        Members.create(members.folder, SITES)
    with pytest.raises(RecordError, match="no federation was created here"):
        Members.open(tmp_path)
    with pytest.raises(ValueError, match="differs by case"):
        members.invite("HOSP-1")


@pytest.mark.parametrize(
    "damage",
    [
        change(sites="hosp-1"),
        change(sites=[1]),
        change(name=None),
        lambda told: told.pop("federation"),
    ],
)
def test_a_damaged_federation_is_said_in_words(members, damage):
    file = members.folder / "federation.json"
    told = read_json(file)
    damage(told)
    file.write_text(json.dumps(told))
    with pytest.raises(RecordError, match=r"federation\.json: damaged"):
        Members.open(members.folder)


def test_a_members_file_that_was_altered_admits_nobody(members, home):
    joined(members, home)
    file = members.folder / "members" / "hosp-1.json"
    true, key = read_json(file), public_of(Ed25519PrivateKey.generate())
    for damage in (
        lambda told: told["admission"].update(site_key=key),
        lambda told: told.pop("admission"),
        change(admission=5),
    ):
        told = json.loads(json.dumps(true))
        damage(told)
        write_json(file, told)
        with pytest.raises(RecordError, match=r"hosp-1\.json: "):
            dict(members.public_keys())
    write_json(members.folder / "members" / "hosp-2.json", true)
    write_json(file, true)
    with pytest.raises(RecordError, match=r"hosp-2\.json: is of another federation or site"):
        dict(members.public_keys())


def test_the_coordinators_key_is_its_own(members):
    key = members.folder / "keys" / "coordinator.key"
    assert public_of(read_key(key)) == public_of(members.key)
    key.chmod(0o640)
    with pytest.raises(RecordError, match="others than its owner"):
        members.invite("hosp-1")


# --- Kits


def test_a_kit_is_all_that_a_site_needs(members, home):
    file = members.make_kit("hosp-1")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    kit = read_kit(file)
    assert "key=" not in repr(kit).replace("_key=", "")
    accept_kit(home, kit, file)
    assert membership(home).public == membership_key(members)
    assert stat.S_IMODE((home / "keys" / "admission.json").stat().st_mode) == 0o600


def test_a_kit_that_lies(members, home, tmp_path, monkeypatch):
    file = members.make_kit("hosp-1")
    true = read_json(file)
    other = Ed25519PrivateKey.generate().private_bytes_raw().hex()
    for damage, why in (
        (change(key=other), "its key is not that of its admission"),
        (change(key="zz"), "damaged"),
        (change(key=None), "damaged"),
        (change(more="1"), "is no kit of this version"),
        (change(admission=[1]), "damaged"),
        (lambda told: told["admission"].update(expires="2999-01-01T00:00:00+00:00"), "was altered"),
    ):
        told = json.loads(json.dumps(true))
        damage(told)
        write_json(tmp_path / "kit", told)
        with pytest.raises(LetterError, match=why):
            read_kit(tmp_path / "kit")
    later(monkeypatch, 366)
    with pytest.raises(LetterError, match="ended at"):
        accept_kit(home, read_kit(file), file)
    assert not home.exists()


def test_a_kit_does_not_take_the_home_of_another_federation(members, home, tmp_path):
    other = Members.create(tmp_path / "south", SITES)
    file = other.make_kit("hosp-1")
    asked(members, home)
    with pytest.raises(LetterError, match="belongs to hosp-1 in the federation north"):
        accept_kit(home, read_kit(file), file)


def test_times_have_a_zone_and_are_of_now(members):
    expires = letters.moment(Invitation.read(invitation(members)).expires)
    assert timedelta(days=29) < expires - datetime.now(UTC) <= timedelta(days=30)


# --- What members say to each other


def spoken(members: Members, root: Path) -> dict[str, bytes]:
    """What comes back of one order to every member, from answers that lie there."""
    public = members.public_keys()
    with FolderCourier(root, members.federation, members.key, public, lambda _: None) as courier:
        return dict(courier.exchange(dict.fromkeys(public, b"Task"), 0.0))


def say(members: Members, home: Path, root: Path, answer=b"R") -> None:
    """A site answers an order that is out."""
    me = membership(home)
    place = root / "outbox" / me.site / f"{digest_of(b'Task')}{ORDER}"
    place.parent.mkdir(parents=True, exist_ok=True)
    what = about(ORDER, members.federation, me.site, place.stem)
    write_signed(place, members.key, what, 0, b"Task")
    assert answer_folder(root, me, lambda order: answer) == 1


def test_members_are_heard_and_others_are_not(members, home, tmp_path):
    root = tmp_path / "stick"
    joined(members, home)
    joined(members, tmp_path / "second", "hosp-2")
    assert list(members.public_keys()) == ["hosp-1", "hosp-2"]
    assert list(members.public_keys(["hosp-2", "Straße 9", "hosp-9"])) == ["hosp-2"]
    say(members, home, root)
    assert spoken(members, root) == {"hosp-1": b"R"}
    say(members, tmp_path / "second", root, b"R2")
    assert spoken(members, root) == {"hosp-1": b"R", "hosp-2": b"R2"}
    public, notes = members.public_keys(), []
    with FolderCourier(root, members.federation, members.key, public, notes.append) as courier:
        both = dict.fromkeys(SITES[:2], b"Task")
        answers = courier.exchange(both, 0.5)
        assert next(answers) == ("hosp-1", b"R")
        members.revoke("hosp-2")  # while the run goes on
        assert list(answers) == [], "its answer lies there"
        assert list(courier.exchange({"hosp-2": b"More"}, 60.0)) == [], "at once"
    assert notes == ["hosp-2: is no member any more; not asked"]
    assert spoken(members, root) == {"hosp-1": b"R"}
    members.invite("hosp-1")
    joined(members, home)
    assert spoken(members, root) == {}, "what the key before has signed is not its answer now"
    say(members, home, root, b"R3")
    assert spoken(members, root) == {"hosp-1": b"R3"}
