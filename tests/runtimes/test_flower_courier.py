"""What the courier over Flower believes, and what it does when runs are lost.

Flower is played by a puppet, which calls back as a run does; the same over real processes is in
``test_flower.py``.
"""

import json
import socket
import threading
import time
from importlib.util import find_spec

import pytest

from runtimes.parties import COORDINATOR, FEDERATION, key, member
from silotune.runtimes import flower
from silotune.runtimes.flower import NODES, FlowerCourier, nodes_of
from silotune.runtimes.signed_files import digest_of
from silotune.runtimes.signed_messages import sealed, unsealed
from silotune.runtimes.signed_socket import ANSWER, ORDER, about
from silotune_link.frames import read_message, write_message

SITES = {"east": 11, "west": 22}


def said(site: str, message: bytes, *, by=None, number=None) -> bytes:
    """What a site says to an order, or what somebody says in its name."""
    order = unsealed(message, member(site).coordinator, about(ORDER, FEDERATION, site))
    what = about(ANSWER, FEDERATION, site, digest_of(order.content))
    return sealed(by or key(site), what, number or order.number, b"R" + order.content)


class Puppet:
    """Runs of Flower. ``play(run, site, message)`` gives answers of nodes; None ends the run."""

    def __init__(self, play) -> None:
        self.play, self.runs, self.posted = play, 0, []

    def start(self, path: str) -> None:
        self.runs += 1
        threading.Thread(target=self.run, args=(path, self.runs), daemon=True).start()

    def run(self, path, number):
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(path)
            with link.makefile("rb") as orders, link.makefile("wb") as answers:
                write_message(answers, {"event": "up", "sites": []})
                try:
                    while True:
                        head, body = read_message(orders)
                        site = next((s for s, n in SITES.items() if str(n) == head.get("site")), "")
                        self.posted.append((number, site))
                        replies = self.play(number, site, body) if site else []
                        if replies is None:
                            return
                        for reply in replies:
                            write_message(answers, {"event": "answer", **head}, reply)
                except (EOFError, OSError):
                    return


@pytest.fixture
def courier(tmp_path, monkeypatch):
    """Opens a courier whose Flower is a puppet."""
    (tmp_path / "flower").mkdir()
    (tmp_path / "flower" / NODES).write_text(json.dumps(SITES))
    monkeypatch.setattr(flower, "find_spec", lambda name: object())
    monkeypatch.setattr(flower, "_PAUSE", 0.05)
    open_now = []

    def opened(play, keys=None):
        puppet = Puppet(play)

        def begin(words, **_):
            settings = (tmp_path / "run" / "flower-app" / "pyproject.toml").read_text()
            puppet.start(json.loads(settings.partition("socket = ")[2].partition("\n")[0]))
            return flower.subprocess.CompletedProcess(words, 0, b'{"run-id": "5"}', b"")

        monkeypatch.setattr(flower.subprocess, "run", begin)
        keys = {name: member(name).public for name in SITES} if keys is None else keys
        one = FlowerCourier(tmp_path / "flower", FEDERATION, COORDINATOR, keys, tmp_path / "run")
        open_now.append(one.__enter__())
        return one, puppet

    yield opened
    for one in open_now:
        one.__exit__(None, None, None)


def test_each_site_answers_its_own_order(courier):
    one, puppet = courier(lambda run, site, message: [said(site, message)])
    for _ in range(2):
        orders = {"east": b"T1", "west": b"T2"}
        assert dict(one.exchange(orders, 10)) == {"east": b"RT1", "west": b"RT2"}
    assert puppet.runs == 1


FORGED = {
    "nobody's": lambda site, message, kept: b"R",
    "of another key": lambda site, message, kept: said(site, message, by=key("a stranger")),
    "of the other site's key": lambda site, message, kept: said(site, message, by=key("west")),
    "of an earlier time": lambda site, message, kept: kept[0],
}


@pytest.mark.parametrize("how", FORGED)
def test_what_the_site_did_not_sign_for_this_order_is_asked_for_again(courier, how):
    times, kept = [], []

    def play(run, site, message):
        kept.append(said(site, message))
        times.append(site)
        if len(times) in (1, 4):
            return [kept[-1]]
        return [FORGED[how](site, message, kept) if len(times) == 2 else kept[-1]]

    one, _ = courier(play)
    assert dict(one.exchange({"east": b"T"}, 10)) == {"east": b"RT"}
    assert dict(one.exchange({"east": b"T"}, 10)) == {"east": b"RT"}
    assert len(times) == 3


def test_a_run_that_is_lost_is_begun_again_with_what_is_unanswered(courier):
    def play(run, site, message):
        return None if (run, site) == (1, "west") else [said(site, message)]

    one, puppet = courier(play)
    assert dict(one.exchange({"east": b"T1", "west": b"T2"}, 10)) == {
        "east": b"RT1",
        "west": b"RT2",
    }
    assert puppet.runs == 2


def test_who_is_no_member_any_more_is_neither_asked_nor_heard(courier):
    keys = {name: member(name).public for name in SITES}
    one, puppet = courier(lambda run, site, message: [said(site, message)], keys)
    del keys["west"]
    assert dict(one.exchange({"east": b"T1", "west": b"T2"}, 10)) == {"east": b"RT1"}
    assert "west" not in {site for _, site in puppet.posted}


def test_who_is_revoked_while_it_is_asked_is_not_heard(courier):
    keys = {name: member(name).public for name in SITES}

    def play(run, site, message):
        keys.pop(site, None)
        return [said(site, message)]

    one, puppet = courier(play, keys)
    assert list(one.exchange({"west": b"T2"}, 0.5)) == []
    assert [site for _, site in puppet.posted if site] == ["west"]


def test_where_no_superlink_is_nobody_answers(courier, monkeypatch, tmp_path):
    one, _ = courier(lambda run, site, message: [])
    failed = flower.subprocess.CompletedProcess([], 1, b"", b"connection refused")
    monkeypatch.setattr(flower.subprocess, "run", lambda *_, **__: failed)
    begun = time.monotonic()
    assert list(one.exchange({"east": b"T"}, 0.3)) == []
    assert time.monotonic() - begun < 3.0
    assert "connection refused" in (tmp_path / "run" / flower.LOG).read_text()


def test_an_order_for_nobody_of_this_run_is_refused(courier):
    one, puppet = courier(lambda run, site, message: [])
    with pytest.raises(ValueError, match="x are not of this run"):
        list(one.exchange({"x": b"T"}, 1))
    assert puppet.runs == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (None, r"nodes\.json is missing; write the node of every site"),
        ("", r"nodes\.json: damaged"),
        ("[]", r"nodes\.json: damaged"),
        ('{"east": "x", "west": 2}', r"nodes\.json: damaged"),
        ('{"east": 1}', r"nodes\.json: west has no node; add it"),
        ('{"east": 1, "west": 1}', r"nodes\.json: two sites have one node"),
    ],
)
def test_nodes_that_are_not_known_are_named_before_anything_begins(tmp_path, text, words):
    if text is not None:
        (tmp_path / NODES).write_text(text)
    with pytest.raises(ValueError, match=words):
        nodes_of(tmp_path, frozenset(SITES))


@pytest.mark.skipif(find_spec("flwr") is not None, reason="Flower is installed")
def test_where_flower_is_not_installed_the_extra_is_named(tmp_path):
    with (
        pytest.raises(ValueError, match=r"pip install 'silotune\[flower\]'"),
        FlowerCourier(tmp_path, FEDERATION, COORDINATOR, {}, tmp_path),
    ):
        pass
