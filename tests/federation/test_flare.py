"""Members of a federation with a server of NVIDIA FLARE: who is certified, and who kept out."""

import json
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from runtimes.small_keys import small_keys
from silotune.core import RecordError
from silotune.core.files import read_json, write_json
from silotune.federation import flare
from silotune.federation.admission import Request
from silotune.federation.kit import read_kit
from silotune.federation.members import Members
from silotune.keys import LetterError
from silotune.runtimes.nvflare_certificates import Root, end_of, new_key, request_of
from silotune.runtimes.nvflare_kits import Address, flare_name
from silotune.site.flare import own_kit, write_own_kit
from silotune.site.home import Home
from silotune.site.membership import accept_admission, accept_kit, answer_invitation, membership

SERVER = Address("fl.coord.org", 8002)

__all__ = ["small_keys"]


@pytest.fixture
def members(tmp_path, small_keys) -> Members:
    return Members.create(tmp_path / "north", ["hosp-1", "Straße 9"], "lead", SERVER)


@pytest.fixture
def home(tmp_path) -> Path:
    return tmp_path / "home"


def asked(members: Members, home: Path, site="hosp-1") -> Request:
    return Request.opened(answer_invitation(home, members.invite(site)), "request")


def letter(members: Members, home: Path, request: Request) -> Path:
    place = home.parent / "letter"
    write_json(place, members.approve(request).signed(members.key))
    return place


def joined(members: Members, home: Path, site="hosp-1") -> str:
    """FLARE's name of it."""
    admission = accept_admission(home, letter(members, home, asked(members, home, site)))
    return flare_name(site, admission.site_key)


def disabled(members: Members) -> list[str]:
    return read_json(members.folder / "nvflare" / "server" / flare.DISABLED)["disabled_clients"]


@pytest.mark.parametrize("site", ["hosp-1", "Straße 9"])
def test_a_site_gets_its_certificate_and_its_key_never_leaves_it(members, home, site):
    name = joined(members, home, site)
    kit = own_kit(Home(home))
    assert kit == home / "flare"
    client = json.loads((kit / "startup" / "fed_client.json").read_text())
    assert client["client"]["fqsn"] == name
    assert client["servers"][0]["service"]["target"] == "fl.coord.org:8002"
    [secret] = (home / "keys").glob("*.pem")
    text = secret.read_bytes()
    assert stat.S_IMODE(secret.stat().st_mode) == 0o600
    lines = text.splitlines()[1:-1]
    for file in (*members.folder.rglob("*"), home.parent / "letter"):
        if file.is_file():
            assert not any(line in file.read_bytes() for line in lines[2:-2]), file
    certificate = (kit / "startup" / "client.crt").read_text()
    assert end_of(certificate).isoformat() == members.standing(site).expires, "one date for both"


def test_what_is_done_twice_is_done_once(members, home):
    invitation = members.invite("hosp-1")
    request = Request.opened(answer_invitation(home, invitation), "request")
    assert Request.opened(answer_invitation(home, invitation), "request") == request
    assert members.approve(request) == members.approve(request)


def altered(members: Members, home: Path, **changes: str) -> Request:
    """A request that says something else."""
    told = answer_invitation(home, members.invite("hosp-1"))
    fields = {k: v for k, v in told.items() if k not in ("purpose", "signature")}
    return Request(**(fields | changes))


@pytest.mark.parametrize(
    ("asks", "words"),
    [
        (lambda: "", "is damaged"),
        (lambda: request_of(new_key(), "hosp-2"), "another name than hosp-1-"),
        (lambda: request_of(new_key(), "fl.coord.org"), "another name"),
        (lambda: request_of(new_key(), "lead@silotune"), "another name"),
    ],
)
def test_a_certificate_for_somebody_else_is_not_given(members, home, asks, words):
    with pytest.raises(LetterError, match=rf"request: of hosp-1: .*{words}.*; ask for another"):
        members.approve(altered(members, home, certificate_request=asks()))
    assert members.standing("hosp-1").state == "invited"
    assert not list((members.folder / "nvflare" / "issued").glob("*"))


def test_a_site_takes_no_certificate_but_its_own(members, home):
    request = asked(members, home)
    admission = members.approve(request)
    other = Root.create("another").again(admission.certificate, datetime.now(UTC) + timedelta(9))
    for changes, words in (
        ({"certificate": other}, "of another authority"),
        ({"root": Root.create("another").certificate}, "of another authority"),
        ({"server": "fl.elsewhere.org:8002"}, "does not answer what hosp-1 has asked"),
        ({"server": "", "certificate": "", "root": ""}, "does not answer what hosp-1 has asked"),
    ):
        place = home.parent / "altered"
        write_json(place, type(admission)(**(vars(admission) | changes)).signed(members.key))
        with pytest.raises(LetterError, match=words):
            accept_admission(home, place)
    accept_admission(home, letter(members, home, request))


def test_a_key_that_was_lost_is_missed(members, home):
    place = letter(members, home, asked(members, home))
    for file in (home / "keys").glob("*.pem"):
        file.unlink()
    with pytest.raises(RecordError, match="is missing; bring the key back"):
        accept_admission(home, place)


def test_who_is_no_member_may_not_connect_and_another_key_is_another_name(members, home):
    old = joined(members, home)
    assert members.flare.disable(members.flare_names())
    assert not members.flare.disable(members.flare_names()), "nothing is new"
    assert disabled(members) == []
    members.revoke("hosp-1")
    assert members.flare.disable(members.flare_names())
    assert disabled(members) == [old]
    new = joined(members, home)
    assert new != old
    members.flare.disable(members.flare_names())
    assert disabled(members) == [old], "the key that was revoked stays out"
    assert len(list((home / "keys").glob("*.pem"))) == 1


def test_a_kit_of_an_earlier_key_is_seen(members, home):
    joined(members, home)
    write_own_kit(Home(home))
    joined(members, home)
    with pytest.raises(RecordError, match="is not as it was written"):
        own_kit(Home(home))
    write_own_kit(Home(home))
    own_kit(Home(home))


def test_a_kit_with_keys_made_by_the_coordinator(members, home):
    file = members.make_kit("hosp-1")
    kit = read_kit(file)
    assert kit.tls_key not in repr(kit)
    accept_kit(home, kit, file)
    own_kit(Home(home))
    assert membership(home).public == members.public_keys()["hosp-1"]


def test_without_a_server_there_is_no_certificate(tmp_path, home):
    members = Members.create(tmp_path / "south", ["hosp-1"])
    assert members.flare is None
    admission = accept_admission(home, letter(members, home, asked(members, home)))
    assert (admission.server, admission.certificate, admission.root) == ("", "", "")
    assert own_kit(Home(home)) is write_own_kit(Home(home)) is None
    assert not list((home / "keys").glob("*.pem"))


def test_server_and_coordinator_are_renewed_before_their_end(members, monkeypatch):
    server, lead = members.flare.server(), members.flare.lead()
    before = (server / "startup" / "server.crt").read_text()
    assert members.flare.renew() == before
    root = members.flare.root
    now = datetime.now(UTC) + timedelta(days=flare.DAYS - 20)

    class Later(datetime):
        @classmethod
        def now(cls, zone=None):
            return now

    monkeypatch.setattr(flare, "datetime", Later)
    after = members.flare.renew()
    assert after == (server / "startup" / "server.crt").read_text()
    assert end_of(after) > end_of(before) + timedelta(days=300)
    assert members.flare.root == root, "sites notice nothing"
    assert (members.flare.server(), members.flare.lead()) == (server, lead)
    assert members.flare.renew() == after


def test_a_kit_that_was_altered_does_not_start(members):
    permissions = members.flare.server() / "local" / "authorization.json"
    permissions.write_text(permissions.read_text().replace("none", "any"))
    with pytest.raises(RecordError, match=r"authorization\.json: is not as it was written"):
        Members.open(members.folder).flare.server()


def test_what_is_there_of_a_coordinator_is_for_its_eyes(members, home):
    joined(members, home)
    for file in (members.folder / "nvflare").rglob("*"):
        assert not stat.S_IMODE(file.stat().st_mode) & 0o077, file
