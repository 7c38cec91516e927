"""Who a configured run asks: members, at every moment of it."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from silotune.cli.couriers import courier_of
from silotune.core.files import write_json
from silotune.federation.admission import Request
from silotune.federation.members import Members
from silotune.runs.folder import RunFolder
from silotune.site.membership import accept_admission, answer_invitation


@pytest.fixture
def members(tmp_path) -> Members:
    """Of two sites, of which both were admitted; a third was only invited."""
    found = Members.create(tmp_path / "north", ["east", "west", "south"])
    for site in found.sites:
        invitation = found.invite(site)
        if site != "south":
            told = answer_invitation(tmp_path / site, invitation)
            admission = found.approve(Request.opened(told, "request"))
            write_json(tmp_path / "letter", admission.signed(found.key))
            accept_admission(tmp_path / site, tmp_path / "letter")
    return found


def configured(members: Members, *sites: str) -> SimpleNamespace:
    """As much of a configuration as decides the way to its sites."""
    federation = SimpleNamespace(sites=sites, kit=str(members.folder), folder=None)
    return SimpleNamespace(runtime="folder", federation=federation)


def test_who_is_no_member_is_named_before_anything_is_asked(members, tmp_path):
    run = RunFolder(tmp_path / "run")
    for sites in (("east", "south"), ("east", "north")):
        with pytest.raises(ValueError, match=f"federation.sites: {sites[1]} is no member of north"):
            courier_of(configured(members, *sites), run).__enter__()
    assert not Path(members.folder / "exchange").exists()


def test_who_is_revoked_is_asked_no_more_by_a_run_that_is_going_on(members, tmp_path):
    with courier_of(configured(members, "east", "west"), RunFolder(tmp_path / "run")) as courier:
        outbox = members.folder / "exchange" / "outbox"
        orders = {"east": b"T1", "west": b"T2"}
        answers = courier.exchange(orders, 0.05)
        assert list(answers) == []
        members.revoke("west")
        asked = []
        courier._ask, ask = (
            lambda client, order: asked.append(client) or ask(client, order),
            courier._ask,
        )
        assert list(courier.exchange(orders, 0.05)) == []
        assert asked == ["east"]
        assert not list(outbox.rglob("*.order"))
