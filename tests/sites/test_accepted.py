"""What a certificate says of who accepted which terms, and whether anybody finds a lie in it."""

import json
import shutil

import pytest

import silotune as st
from silotune.federation.verify import verify
from silotune.site.home import Home
from silotune.site.own_books import verify_own
from sites.wire import federation, wire

PRIVATE = st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3)
DIGEST = "0" * 64


@pytest.fixture(scope="module")
def finished(tmp_path_factory, bert):
    """A run of two sites that has ended, and the courier to them."""
    place = tmp_path_factory.mktemp("accepted")
    courier = wire(place, bert)
    courier.transport = "folder"
    asked = federation(bert, privacy=PRIVATE, rounds=1)
    return asked.fit(place / "run", courier=courier, progress=False), courier, place / "run"


def said(folder):
    return json.loads((folder / "privacy.json").read_text())


def changed(told, path, value):
    """The certificate with another value deep in it; None takes the field out."""
    *way, last = path.split(".")
    part = told
    for name in way:
        part = part[name]
    if value is None:
        del part[last]
    else:
        part[last] = value
    return told


def test_the_certificate_says_who_accepted_what_and_how_it_went(finished):
    run, courier, folder = finished
    told = run.privacy.statement.federation
    home = Home(courier.own["west"].home)
    offer = home.offer(run.privacy.statement.run)
    assert (told["offer"], told["coordinator"]) == (offer.digest, "lead")
    assert told["transports"] == ["folder"]
    policies = {name: site["policy"] for name, site in told["sites"].items()}
    assert policies == {name: own.policy.digest for name, own in courier.own.items()}
    assert "each signed by its sender and none encrypted" in run.privacy.statement.transport[0]
    for page in ("report.html", "adapter/README.md"):
        text = (folder / page).read_text()
        assert offer.digest[:16] in text
        assert "as files in a folder" in text.lower()
    assert run.privacy.verify().ok


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("federation", {}),
        ("federation.offer", DIGEST),
        ("federation.terms", DIGEST),
        ("federation.coordinator", "mallory"),
        ("federation.sites.west.policy", DIGEST),
        ("federation.sites.west.accepted", "2020-01-01T00:00:00+00:00"),
        ("federation.sites.west.versions", {"silotune": "9"}),
        ("federation.sites.west.num_examples", 21),
        ("federation.sites.west", None),
    ],
)
def test_a_site_finds_what_was_made_up_of_it(finished, tmp_path, path, value):
    """And so does whoever has the run's folder."""
    _, courier, folder = finished
    told = said(folder)
    aside = tmp_path / "certificate.json"
    aside.write_text(json.dumps(changed(told, path, value)))
    own = courier.own["west"]
    assert verify_own(Home(own.home), "west", told["run"], aside).findings
    shutil.copytree(folder, tmp_path / "run")
    shutil.copy(aside, tmp_path / "run" / "privacy.json")
    assert verify(tmp_path / "run").findings


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("federation.sites", []),
        ("federation.sites", {"west": []}),
        ("federation.sites.west.accepted", "yesterday"),
        ("federation.sites.west.accepted", 7),
        ("federation.sites.west.policy", "x"),
        ("federation.sites.west.num_examples", True),
        ("federation.sites.west.versions", ["1"]),
        ("federation.sites.west.word", "trust us"),
        ("federation.word", "trust us"),
        ("federation.transports", []),
        ("federation.transports", ["folder", "folder"]),
        ("federation.transports", ["pigeon"]),
        ("federation.transports", ["nvflare"]),
        ("federation.transports", [[]]),
        ("federation.transports", None),
        ("federation", "x"),
        ("transport", ["nobody saw anything"]),
        ("transport", "x"),
        ("silos.west.presumed", {}),
        ("silos.west.last_heard", "x"),
        ("silos.west.last_heard", True),
    ],
)
def test_what_is_none_is_said_in_words_and_breaks_nothing(finished, tmp_path, path, value):
    _, courier, folder = finished
    told = said(folder)
    aside = tmp_path / "certificate.json"
    aside.write_text(json.dumps(changed(told, path, value)))
    assert verify_own(Home(courier.own["west"].home), "west", told["run"], aside).findings


def test_a_site_that_says_the_same_again_keeps_its_time(finished):
    """What it says is written down once, and another policy is another line."""
    run, courier, _ = finished
    home = Home(courier.own["west"].home)
    file = home.run(run.privacy.statement.run) / "accepted.jsonl"
    [line] = map(json.loads, file.read_text().splitlines())
    told = run.privacy.statement.federation["sites"]["west"]
    assert {name: line[name] for name in told} == told
