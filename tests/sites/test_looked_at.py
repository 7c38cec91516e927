"""A run over sites that somebody looks at: while it goes on, when it was cut short, at its end."""

from contextlib import closing

import pytest

import silotune as st
from federation.small import SILOS
from silotune.federation.acceptance import SitesRefuseError
from silotune.reports.live_page import live_page
from silotune.reports.live_view import NOT_BEGUN, RUNNING, view_of
from silotune.runs.folder import RunFolder
from sites.wire import federation, wire


def does(view):
    return {site.name: (site.live.doing.value, str(site.live.order)) for site in view.sites}


def test_from_the_offer_to_the_result(tmp_path, bert):
    courier, folder = wire(tmp_path, bert), RunFolder(tmp_path / "run")
    courier.allow("west", approve="each")
    private = st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3)
    asked = federation(bert, privacy=private)
    asked.offer_deadline = 0.5
    with pytest.raises(SitesRefuseError, match="nobody has approved"):
        asked.fit(folder.path, courier=courier, progress=False)
    view = view_of(folder)
    assert view.status == NOT_BEGUN
    assert does(view) == {"east": ("idle", "offer"), "west": ("waiting", "offer")}
    assert "waits for approval there" in live_page(view)

    courier.allow("west", approve="any")
    rounds = federation(bert, privacy=private).rounds(folder.path, courier=courier, resume=True)
    with closing(rounds):
        next(rounds)
        assert does(view_of(folder)) == dict.fromkeys(SILOS, ("idle", "begin"))
        first = next(rounds)
        view = view_of(folder)
        assert (view.status, view.rounds, view.bytes_up) == (RUNNING, 1, first.bytes_up)
        assert does(view) == dict.fromkeys(SILOS, ("idle", "score"))
        assert {site.name: site.epsilon for site in view.sites} == first.epsilon
        assert {site.num_examples for site in view.sites} == {20}
        assert [record.round for record in rounds] == [1, 2]
    view = view_of(folder)
    assert (view.status, view.rounds) == ("finished", 3)
    assert does(view) == dict.fromkeys(SILOS, ("idle", "finish"))
    assert {site.rounds for site in view.sites} == {3}
