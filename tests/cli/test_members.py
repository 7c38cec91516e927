"""``federation`` and ``site join``: a federation is made over letters alone, in words."""

import json
import stat
from pathlib import Path

import pytest

from silotune.config import ConfigError
from silotune.config.site_file import read_site
from silotune.core.files import read_json, write_json
from silotune.federation.members import Members
from silotune.site import Policy
from silotune.site.membership import membership


@pytest.fixture
def hospital(tmp_path, monkeypatch):
    """A coordinator's folder and a site's, on two machines; ``at`` goes to one of them."""

    def at(name: str) -> Path:
        place = tmp_path / name
        place.mkdir(mode=0o700, exist_ok=True)
        monkeypatch.chdir(place)
        return place

    (at("hospital") / "notes.csv").write_text("text,label\na,b\n")
    return at


def line(text: str, begin: str) -> str:
    """What follows these words in a line of what was said."""
    (found,) = [row.removeprefix(begin) for row in text.splitlines() if row.startswith(begin)]
    return found.partition(";")[0].strip()


def ok(result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def refused(result) -> str:
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    return result.stderr


def test_from_invitation_to_member(silotune, hospital):
    office = hospital("office")
    said = ok(silotune("federation", "create", "north", "--sites", "hosp-1, hosp-2"))
    coordinator = line(said, "your key: ")
    letter = office / "north" / "invitations" / "hosp-1.invitation"
    assert f"for hosp-1: {letter.relative_to(office)}" in said

    ward = hospital("hospital")
    said = ok(silotune("site", "join", letter, "--data", "notes.csv", "--num-examples", 300))
    assert line(said, "key of north: ") == coordinator
    mine = line(said, "key of this site: ")
    assert "wrote hosp-1.request: send it to north" in said
    assert "wrote site.yaml" not in ok(silotune("site", "join", letter))

    hospital("office")
    request = ward / "hosp-1.request"
    wrong = silotune("federation", "approve", request, "--fingerprint", "0000 1111")
    assert "has the fingerprint" in refused(wrong)
    assert not (office / "hosp-1.admission").exists()
    said = ok(silotune("federation", "approve", request, "--federation", "north"))
    assert "Compare this" in said
    assert "silotune federation revoke hosp-1 --federation north" in said
    assert "silotune site join hosp-1.admission" in said
    said = ok(silotune("federation", "approve", request, "--fingerprint", mine.upper()))
    assert line(said, "its key: ") == mine
    assert "Compare this" not in said

    hospital("hospital")
    said = ok(silotune("site", "join", office / "hosp-1.admission"))
    serve = "silotune site serve --site site.yaml --folder FOLDER"
    assert f"next: say in site.yaml what is allowed, then: {serve}" in said
    assert "hosp-1 is a member of north until 20" in said
    own = read_site(ward / "site.yaml")
    assert own.policy == Policy(coordinator="north"), "the strictest, but for who asks"
    assert (own.name, own.num_examples, own.home) == ("hosp-1", 300, ward / "home")
    assert own.records.clients == {"hosp-1": ward / "notes.csv"}
    assert stat.S_IMODE((ward / "site.yaml").stat().st_mode) == 0o600
    me = membership(own.home)
    assert Members.open(office / "north").public_keys() == {"hosp-1": me.public}

    hospital("office")
    told = json.loads(ok(silotune("federation", "status", "--json")))
    assert told["sites"]["hosp-1"]["state"] == "admitted"
    assert told["sites"]["hosp-2"] == {
        "state": "invited",
        "expires": told["sites"]["hosp-2"]["expires"],
        "key": "",
    }
    said = ok(silotune("federation", "status"))
    assert coordinator in said
    assert mine in said
    assert "revoked hosp-1" in ok(silotune("federation", "revoke", "hosp-1"))
    assert "the membership of hosp-1 has ended" in refused(
        silotune("federation", "approve", request)
    )
    assert "for hosp-1: north/" in ok(silotune("federation", "invite", "hosp-1"))


def test_a_kit_is_joined_at_once_and_says_what_it_gives_up(silotune, hospital):
    office = hospital("office")
    create = ("federation", "create", "trial", "--sites", "a,b", "--coordinator", "lead@x.org")
    said = ok(silotune(*create, "--with-keys"))
    assert "whoever has had a kit, you first of all, can answer in that site's name" in said
    assert "proves nothing against you" in said
    kit = office / "trial" / "kits" / "a.kit"
    assert stat.S_IMODE(kit.stat().st_mode) == 0o600
    ward = hospital("hospital")
    said = ok(silotune("site", "join", kit, "--data", "notes.csv", "--home", "deep/home"))
    assert f"Delete {kit}" in said
    assert "data.num_examples" in said
    assert (
        membership(ward / "deep" / "home").public
        == Members.open(office / "trial").public_keys()["a"]
    )
    with pytest.raises(ConfigError, match=r"data\.num_examples: is missing; set it"):
        read_site(ward / "site.yaml")
    text = (ward / "site.yaml").read_text()
    (ward / "site.yaml").write_text(text.replace("# num_examples: ...", "num_examples: 300"))
    assert read_site(ward / "site.yaml").policy == Policy(coordinator="lead@x.org")


def test_a_refused_letter_leaves_nothing(silotune, hospital):
    office = hospital("office")
    ok(silotune("federation", "create", "north", "--sites", "hosp-1"))
    letter = office / "north" / "invitations" / "hosp-1.invitation"
    write_json(letter, read_json(letter) | {"site": "hosp-2"})
    ward = hospital("hospital")
    before = sorted(ward.iterdir())
    for words, why in (
        ((letter, "--data", "notes.csv"), "was altered after it was signed"),
        ((letter,), "was altered after it was signed"),
        ((ward / "nothing",), "nothing: is missing"),
        ((ward / "notes.csv",), "notes.csv: damaged"),
        ((office / "north" / "federation.json",), "is no invitation, admission, rotation or kit"),
    ):
        assert why in refused(silotune("site", "join", *words))
    assert sorted(ward.iterdir()) == before


def test_what_is_lacking_is_named(silotune, hospital):
    office = hospital("office")
    refused_names = silotune("federation", "create", "north", "--sites", "a,../b")
    assert "sites: '../b' cannot be the name of a folder" in refused(refused_names)
    assert "--federation: name its folder; found here: none" in refused(
        silotune("federation", "status")
    )
    for name in ("north", "south"):
        ok(silotune("federation", "create", name, "--sites", "hosp-1"))
    assert "found here: north, south" in refused(silotune("federation", "status"))
    assert "north: is not empty" in refused(
        silotune("federation", "create", "north", "--sites", "a")
    )
    for words in (("--federation", "south"), ("south",)):
        assert ok(silotune("federation", "status", *words)).startswith("south: ")
    twice = silotune("federation", "status", "south", "--federation", "north")
    assert twice.exit_code == 2
    letter = office / "north" / "invitations" / "hosp-1.invitation"
    hospital("hospital")
    assert "--data: say where the records are" in refused(silotune("site", "join", letter))
    gone = refused(silotune("site", "join", letter, "--data", "gone.csv"))
    assert "--data: nothing is at gone.csv" in gone
    ok(silotune("site", "join", letter, "--data", "notes.csv"))
    stays = refused(silotune("site", "join", letter, "--data", "notes.csv"))
    assert "is there, and stays as it is" in stays
    other = office / "south" / "invitations" / "hosp-1.invitation"
    assert "belongs to hosp-1 in the federation north" in refused(silotune("site", "join", other))


def test_a_strange_path_comes_back_as_it_was(silotune, hospital):
    office = hospital("office")
    ok(silotune("federation", "create", "north", "--sites", "Straße 9,b", "--with-keys"))
    ward = hospital("hospital")
    odd = ward / "no: 5 # ünd 'so' 1e5 and on and on and on and on and on and on and on and on"
    odd.mkdir()
    kit = office / "north" / "kits" / "Straße 9.kit"
    ok(silotune("site", "join", kit, "--data", odd, "--num-examples", 7))
    own = read_site(ward / "site.yaml")
    assert own.records.clients == {"Straße 9": odd}


def test_with_a_server_the_same_letters_bring_a_certificate(silotune, hospital):
    office = hospital("office")
    create = ("federation", "create", "north", "--sites", "hosp-1", "--nvflare")
    assert silotune(*create).exit_code == 2, "a server that sites cannot reach is none"
    assert "is no HOST or HOST:PORT" in refused(silotune(*create, "--server", "http://fl"))
    said = ok(silotune(*create, "--server", "fl.coord.org"))
    assert "its server: silotune federation serve, on fl.coord.org (port 8002)" in said
    letter = office / "north" / "invitations" / "hosp-1.invitation"
    ward = hospital("hospital")
    ok(silotune("site", "join", letter, "--data", "notes.csv", "--num-examples", 300))
    hospital("office")
    ok(silotune("federation", "approve", ward / "hosp-1.request"))
    ward = hospital("hospital")
    said = ok(silotune("site", "join", office / "hosp-1.admission"))
    kit = ward / "home" / "flare"
    assert f"it reaches north at fl.coord.org:8002, by the kit {kit}" in said
    assert line(said, "next: say in site.yaml what is allowed, then: ") == (
        "silotune site serve --site site.yaml"
    )
    assert (kit / "startup" / "client.crt").is_file()
    (kit / "local" / "authorization.json").write_text("{}")
    ok(silotune("site", "join", office / "hosp-1.admission"))
    assert "byoc" in (kit / "local" / "authorization.json").read_text(), "it is written anew"
    hospital("office")
    assert "its server of NVIDIA FLARE: fl.coord.org:8002" in ok(silotune("federation", "status"))


def test_who_has_to_be_invited_again_soon_is_said(silotune, hospital):
    office = hospital("office")
    ok(silotune("federation", "create", "north", "--sites", "a,b", "--with-keys"))
    assert "renew it" not in ok(silotune("federation", "status"))
    Members.open(office / "north").make_kit("a", days=20)
    said = ok(silotune("federation", "status"))
    assert "a: its membership ends at 20" in said
    assert "renew it: silotune federation invite a --federation north" in said
    assert "b: its membership" not in said


def test_a_coordinators_new_key_is_taken_by_who_was_told_it(silotune, hospital):
    office = hospital("office")
    ok(silotune("federation", "create", "north", "--sites", "a", "--with-keys"))
    hospital("hospital")
    ok(silotune("site", "join", office / "north" / "kits" / "a.kit", "--data", "notes.csv"))
    hospital("office")
    said = ok(silotune("federation", "rotate"))
    old, new = line(said, "your key until now: "), line(said, "your key: ")
    letter = office / "north" / "rotations" / "a.1.rotation"
    assert f"for a: {letter.relative_to(office)}" in said
    ward = hospital("hospital")
    said = ok(silotune("site", "join", letter))
    assert line(said, "key of north until now: ") == old
    assert line(said, "key of north from now on: ") == new
    assert "Nothing is changed" in said
    home = ward / "home"
    told = silotune("site", "join", letter, "--fingerprint", old)
    assert "is not the one that was told; nothing is changed" in refused(told)
    before = membership(home).coordinator
    ok(silotune("site", "join", letter, "--fingerprint", new))
    assert membership(home).coordinator != before


def test_what_a_person_has_read_may_run_without_another_look(silotune, hospital, bert):
    office = hospital("office")
    ok(silotune("federation", "create", "north", "--sites", "a", "--with-keys"))
    ward = hospital("hospital")
    (ward / "run.yaml").write_text(
        f"""\
model: {{name_or_path: {bert}, task: sequence-classification}}
data: {{columns: {{text: text, label: label}}, labels: [cat, dog]}}
method: {{name: ffa-lora, r: 2}}
privacy: {{unit: example, target_epsilon: 6, target_delta: 1e-5}}
train: {{num_rounds: 7, local_steps: 5, batch_size: 4}}
federation: {{sites: [a, b], kit: north}}
evaluation: site
runtime: folder
"""
    )
    kit = office / "north" / "kits" / "a.kit"
    words = ("--data", "notes.csv", "--num-examples", 300, "--allow", "run.yaml")
    assert "it allows runs like run.yaml, and no others" in ok(
        silotune("site", "join", kit, *words)
    )
    own = read_site(ward / "site.yaml")
    assert (own.policy.approve, own.policy.coordinator) == ("any", "north")
    assert own.policy.methods == ("ffa-lora",)
    assert own.policy.columns == ("text", "label")
    assert (own.policy.max_rounds, own.policy.max_local_steps) == (7, 5)
    rules = own.policy.privacy
    assert (rules.units, rules.max_epsilon, rules.max_delta) == (("example",), 6.0, 1e-5)
    assert (rules.lifetime.epsilon, rules.min_other_sites) == (6.0, 1)
    assert list(own.models.values()) == [bert]
