"""A coordinator whose software is another one meanwhile goes on with what its sites accepted."""

import json
from contextlib import closing

import pytest

import silotune as st
from silotune.federation import at_sites, opening
from silotune.federation.beside_sites import OFFERED, offered_with
from silotune.federation.versions import versions
from silotune.runs.folder import RunFolder
from sites.wire import federation, simulation, weights, wire

PRIVATE = {"privacy": st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3)}
NEWER = versions() | {"torch": "99.0"}


@pytest.fixture
def cut(tmp_path, bert):
    """A run that was cut after its second round: the way to its sites, and its folder."""

    def begun(**changes):
        courier, folder = wire(tmp_path, bert), tmp_path / "run"
        with closing(federation(bert, **changes).rounds(folder, courier=courier)) as rounds:
            for record in rounds:
                if record.round == 1:
                    break
        return courier, folder

    return begun


@pytest.fixture
def upgraded(monkeypatch):
    """From now on the coordinator has other software; sites have what they had."""

    def now():
        for module in (at_sites, opening):
            monkeypatch.setattr(module, "versions", lambda: NEWER)
        monkeypatch.setattr("silotune.federation.versions.versions", lambda: NEWER)

    return now


def test_it_goes_on_with_the_offer_that_was_accepted(tmp_path, bert, cut, upgraded):
    simulation(tmp_path, bert).fit(tmp_path / "here", progress=False)
    courier, folder = cut()
    asked = courier.kinds.count(("east", "O", "A"))
    upgraded()
    federation(bert).fit(folder, courier=courier, progress=False, resume=True)
    assert weights(folder) == weights(tmp_path / "here")
    assert courier.kinds.count(("east", "O", "A")) == asked, "nobody is asked to accept again"
    (upgrade,) = json.loads((folder / "run.json").read_text())["upgrades"]
    assert upgrade["versions"]["torch"] == "99.0"


def test_the_certificate_still_binds_what_the_sites_accepted(bert, cut, upgraded):
    courier, folder = cut(**PRIVATE)
    upgraded()
    run = federation(bert, **PRIVATE).fit(folder, courier=courier, progress=False, resume=True)
    assert run.privacy.verify().ok
    assert {kind for kind in courier.kinds if kind[1] == "F"} == {
        ("east", "F", "A"),
        ("west", "F", "A"),
    }


def test_terms_that_are_written_otherwise_are_refused_with_the_cure(bert, cut):
    courier, folder = cut()
    told = json.loads((folder / "sites.json").read_text())
    (folder / "sites.json").write_text(json.dumps(told | {"offer": "0" * 64}))
    with pytest.raises(ValueError, match="finish the run with the version that began it"):
        federation(bert).fit(folder, courier=courier, progress=False, resume=True)


def test_where_the_coordinator_adds_the_noise_it_is_the_one_that_was_accepted(cut):
    _, folder = cut()
    accepted = json.loads((folder / OFFERED).read_text())["versions"]
    place = RunFolder(folder)
    assert offered_with(place, "example", NEWER) == accepted != NEWER
    assert offered_with(place, "client", accepted) == accepted
    with pytest.raises(ValueError, match=r"noise of this coordinator with torch .*; install those"):
        offered_with(place, "client", NEWER)


def test_an_offer_that_nobody_has_begun_names_what_is_here(tmp_path):
    assert offered_with(RunFolder(tmp_path), "example", NEWER) is NEWER
