"""What keeps a site from serving, in words; what it tells while it serves; answering once."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from silotune import ExampleDP
from silotune.cli.site_news import News
from silotune.config.site_file import read_site
from silotune.core.files import RecordError
from silotune.runtimes import FolderCourier
from silotune.runtimes.folder import ORDER, about
from silotune.runtimes.messages import OFFER, message
from silotune.runtimes.nvflare_kits import Address
from silotune.runtimes.signed_files import digest_of, write_signed
from silotune.site.flare import write_own_kit
from silotune.site.held import held
from silotune.site.home import Home
from silotune.site.keeping import ERRORS
from sites.daemons import Place, admitted, places
from sites.offers import offer, terms

QUIET = terms(
    privacy=ExampleDP(noise_multiplier=8.0, target_delta=1e-3),
    rounds=3,
    local_steps=2,
    batch_size=4,
)
"""What the policy allows."""
PARTIES = ("east", "west")


@pytest.fixture
def west(bert, tmp_path) -> Iterator[Place]:
    """A member, whose people look at every run."""
    with places(bert, ("west",)) as sites:
        west = sites["west"]
        west.members = admitted(tmp_path / "federation", sites)
        west.allow("approve: any", "approve: each")
        west.allow("columns: [text, label]", "columns: [note, label]")
        yield west


def refused(silotune, west: Place, *words: str) -> str:
    result = silotune("site", "serve", "--site", west.file, *words)
    assert result.exit_code == 1
    assert not west.socket.exists()
    return result.stderr


@pytest.mark.parametrize("what", ["file", "home"])
def test_what_others_can_write(west, silotune, what):
    path = getattr(west, what)
    path.chmod(path.stat().st_mode | 0o020)
    assert f"{path}: can be written by other users" in refused(silotune, west)


def test_who_is_no_member(west, silotune):
    (west.home / "keys" / "admission.json").unlink()
    assert "is a member of no federation" in refused(silotune, west)


def test_who_is_no_longer_a_member(west, silotune, monkeypatch):
    later = datetime.now(UTC) + timedelta(days=4000)
    monkeypatch.setattr("silotune.site.membership.is_over", lambda e: e < later.isoformat())
    assert "the admission of west ended at" in refused(silotune, west)


def test_a_file_of_another_site(west, silotune):
    west.allow("name: west", "name: east")
    assert "is of east, and its home of west" in refused(silotune, west)


def test_a_second_process_is_told_who_serves(west, silotune):
    with held(Home(west.home)):
        assert f"process {os.getpid()} on " in refused(silotune, west)
        words = "answers for this site; stop it first"
        with pytest.raises(RecordError, match=words), held(Home(west.home)):
            pytest.fail("it is held")
    with held(Home(west.home)):
        pass


def test_a_kit_that_has_changed(bert, silotune, tmp_path, monkeypatch):
    monkeypatch.setattr("silotune.cli.serve.command", lambda kit: pytest.fail("it was started"))
    with places(bert, ("west",)) as sites:
        west = sites["west"]
        admitted(tmp_path / "federation", sites, Address("localhost", 8002))
        permissions = write_own_kit(Home(west.home)) / "local" / "authorization.json"
        permissions.write_text(permissions.read_text().replace("none", "any"))
        assert f"{permissions}: is not as it was written" in refused(silotune, west)


def put(west: Place, root: Path, order: bytes) -> Path:
    """An order that lies there, as the coordinator has signed it; where its answer will lie."""
    federation = west.members.federation
    place = root / "outbox" / "west" / f"{digest_of(order)}{ORDER}"
    place.parent.mkdir(parents=True, exist_ok=True)
    write_signed(place, west.members.key, about(ORDER, federation, "west", place.stem), 0, order)
    return root / "inbox" / "west" / f"{place.stem}.answer"


def test_a_folder_is_answered_once(west, silotune, tmp_path):
    asked, root = offer(QUIET, participants=PARTIES), tmp_path / "stick"
    order, members = message(OFFER, {"attempt": 0}, asked.to_bytes()), west.members
    words = ("site", "answer", root, "--site", west.file)
    with FolderCourier(root, members.federation, members.key, members.public_keys()) as courier:
        assert list(courier.exchange({"west": order}, 0.0)) == []
        answer = put(west, root, order)
        told = silotune(*words)
        assert told.exit_code == 0
        assert "west: answered 1 order in" in told.stdout
        assert "r1: lead asks for 'triage of notes'; it waits for a person" in told.stdout
        assert answer.is_file()
        assert "answered 0 orders" in silotune(*words).stdout
        assert list(courier.exchange({"west": order}, 0.0)), "it is signed by the site's own key"


def test_news_are_told_once(west):
    own = read_site(west.file)
    home, news = Home(own.home), News(west.file, own)
    assert list(news.look()) == []
    home.keep(offer(QUIET, participants=PARTIES).to_bytes())
    home.keep(offer(replace(QUIET, rounds=21), run="r2", title="x\x1b[2J").to_bytes())
    [waits, refused] = sorted(news.look())
    assert waits == (
        "r1: lead asks for 'triage of notes'; it waits for a person; it lacks the base; look at "
        "it: silotune site show r1"
    )
    assert "r2: lead asks for 'x" in refused
    assert "\x1b" not in refused
    assert "refused by policy.max_rounds; look at it" in refused
    assert list(news.look()) == []
    assert list(news.waiting(own)) == [waits]
    west.allow("max_rounds: 20", "max_rounds: 21")
    [allowed] = news.look()
    assert allowed.startswith("r2: lead asks for ")
    assert "it waits for a person" in allowed
    home.decide(home.offer("r1"), "refused")
    assert list(news.look()) == ["r1: lead asks for 'triage of notes'; a person has refused it"]
    assert list(News(west.file, read_site(west.file)).look()) == [], "nothing old after a restart"
    (home.path / ERRORS).write_text('{"error": "a record"}\n')
    [failed] = news.look()
    assert failed == f"an order could not be carried out; why stands in {home.path / ERRORS}"
    west.allow("max_rounds", "max_round")
    [mended] = news.look()
    assert "every order is refused until this is mended" in mended
    assert list(news.look()) == []


def test_the_servers_kit_is_compared_before_its_start(silotune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("silotune.cli.flare_server.command", lambda kit: pytest.fail("started"))
    create = ("federation", "create", "north", "--sites", "west", "--nvflare")
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        port = other.getsockname()[1]
        assert silotune(*create, "--server", f"localhost:{port}").exit_code == 0
        told = silotune("federation", "serve")
        assert told.exit_code == 1
        assert f"port {port}: another program has it" in told.stderr
    resources = tmp_path / "north" / "nvflare" / "server" / "local" / "resources.json"
    resources.write_text("{}")
    told = silotune("federation", "serve")
    assert told.exit_code == 1
    assert "resources.json: is not as it was written" in told.stderr


def test_a_federation_without_a_server_has_none_to_run(silotune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert silotune("federation", "create", "north", "--sites", "west").exit_code == 0
    told = silotune("federation", "serve")
    assert told.exit_code == 1
    assert "has no server of NVIDIA FLARE; make a federation that has one" in told.stderr
