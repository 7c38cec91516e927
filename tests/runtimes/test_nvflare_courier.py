"""What the courier over NVIDIA FLARE does when jobs are lost and sites come and go.

FLARE is played by a puppet, which calls back on the job's socket as a controller does; the same
over real processes is in ``test_nvflare.py``.
"""

import json
import queue
import socket
import threading
import time
from functools import partial
from pathlib import Path

import pytest

from silotune.runtimes import nvflare
from silotune.runtimes.nvflare import NvflareCourier
from silotune.runtimes.nvflare_kits import flare_name
from silotune.runtimes.nvflare_session import Engine
from silotune_link.frames import read_message, write_message

SITES = ("a", "b", "c")
KEYS = {site: site * 64 for site in SITES}
NAMES = {flare_name(site, key): site for site, key in KEYS.items()}
"""By which FLARE knows them."""


class Puppet:
    """A server. ``play(job, site, number, order)`` gives what a job says to an order."""

    def __init__(self, play) -> None:
        self.play, self.here = play, set(SITES)
        self.jobs: list[Job] = []
        self.aborted: list[str] = []
        self.left_over: list[str] = []
        self.away = 0

    def connect(self):
        pass

    def forget(self):
        pass

    close = forget

    def last_heard(self):
        if self.away:
            self.away -= 1
            raise ConnectionError("away")
        return {name: time.time() for name, site in NAMES.items() if site in self.here}

    def submit(self, place):
        self.jobs.append(Job(self, len(self.jobs), place))
        return str(len(self.jobs) - 1)

    def abort_all(self, name):
        self.aborted += self.left_over
        self.left_over.clear()

    def abort(self, job):
        self.aborted.append(job)


class Job(threading.Thread):
    """A controller that calls."""

    def __init__(self, server, number, place) -> None:
        super().__init__(daemon=True)
        self.server, self.number, self.orders = server, number, []
        config = json.loads((place / "app/config/config_fed_server.json").read_text())
        self.path = config["workflows"][0]["args"]["socket_path"]
        names = json.loads((place / "meta.json").read_text())["deploy_map"]["app"][1:]
        self.sites = [NAMES[name] for name in names]
        self.start()

    def run(self):
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(self.path)
            with link.makefile("rb") as down, link.makefile("wb") as up:
                names = [flare_name(site, KEYS[site]) for site in self.sites]
                write_message(up, {"event": "up", "sites": names})
                try:
                    while True:
                        head, body = read_message(down)
                        site = NAMES.get(head.get("site"))
                        self.orders.append((site, body))
                        if not head:
                            continue
                        self.up = partial(write_message, up)
                        for say in self.server.play(self.number, site, head["number"], body):
                            if say is None:
                                return
                            self.up(*say)
                except (EOFError, OSError):
                    return


def answer(site, number, body=b"done", event="answer"):
    name = flare_name(site, KEYS.get(site, ""))
    return {"event": event, "site": name, "number": number}, body


@pytest.fixture
def courier(tmp_path, monkeypatch):
    """``courier(play)`` gives one, and its server; what takes seconds takes less."""
    monkeypatch.setattr(nvflare, "_LOOK", 0.1)
    monkeypatch.setattr(nvflare, "_PAUSE", 0.05)
    monkeypatch.setattr("silotune.runtimes.nvflare_attempt._GATHER", 0.3)
    opened = []

    def make(play):
        keys = dict(KEYS)
        one = NvflareCourier(tmp_path / "kit", keys, tmp_path / "run")
        one._engine = server = Puppet(play)
        server.keys = keys
        opened.append(one.__enter__())
        return one, server

    yield make
    for one in opened:
        one.__exit__(None, None, None)


def everybody(orders=b"order"):
    return dict.fromkeys(SITES, orders)


def test_answers_come_as_they_are_and_the_job_goes_on(courier):
    one, server = courier(lambda job, site, n, body: [answer(site, n, body + site.encode())])
    for order in (b"first", b"second"):
        answers = dict(one.exchange(everybody(order), 10))
        assert answers == {site: order + site.encode() for site in SITES}
    assert len(server.jobs) == 1


def test_a_job_that_is_lost_is_followed_by_another_with_what_is_unanswered(courier):
    def play(job, site, number, body):
        if job == 0:
            return [answer(site, number, b"early")] if site == "a" else [None]
        return [answer(site, number, b"late")]

    one, server = courier(play)
    assert dict(one.exchange(everybody(), 10)) == {"a": b"early", "b": b"late", "c": b"late"}
    assert server.jobs[1].orders == [("b", b"order"), ("c", b"order")]
    assert server.aborted == ["0"]


def test_answers_to_older_numbers_and_of_who_was_not_asked_are_dropped(courier):
    def play(job, site, number, body):
        lies = [answer("b", number, b"in a's name"), answer(site, number - 1, b"older")]
        return [*lies, answer("x", number, b"a stranger"), answer(site, number, b"true")]

    one, _ = courier(play)
    assert list(one.exchange({"a": b"order"}, 10)) == [("a", b"true")]


def test_an_order_that_a_site_has_lost_is_sent_again_and_no_other(courier):
    """Nobody keeps it on the way: it may be large."""
    asked = []

    def play(job, site, number, body):
        asked.append((site, body))
        if asked.count((site, body)) == 1 and site != "a":
            return [answer(site, number - 1, event="lost"), answer(site, number, event="lost")]
        return [answer(site, number, body + site.encode())]

    one, server = courier(play)
    orders = {site: f"order of {site}, ".encode() for site in SITES}
    answers = dict(one.exchange(orders, 10))
    assert answers == {site: body + site.encode() for site, body in orders.items()}
    assert sorted(asked) == sorted([*orders.items(), *((s, orders[s]) for s in ("b", "c"))])
    assert len(server.jobs) == 1


def test_each_site_answers_once(courier):
    one, _ = courier(lambda job, site, n, body: [answer(site, n, b"1"), answer(site, n, b"2")])
    for _ in range(2):
        assert dict(one.exchange(everybody(), 10)) == dict.fromkeys(SITES, b"1")


def test_who_is_silent_and_connected_is_asked_in_another_job(courier):
    def play(job, site, number, body):
        silent = job == 0 and site == "b"
        return [answer(site, number, event="silent" if silent else "answer")]

    one, server = courier(play)
    assert dict(one.exchange(everybody(), 10)) == everybody(b"done")
    assert len(server.jobs) == 2


def test_what_sites_say_before_they_answer_is_told(courier):
    def play(job, site, number, body):
        if site == "b":
            server.here.discard("b")
            return [answer(site, number, event="working"), answer(site, number, event="silent")]
        return [answer(site, number, event="failed"), answer(site, number)]

    one, server = courier(play)
    signs = []
    one.tell(lambda site, sign: signs.append((site, sign.value)))
    assert sorted(dict(one.exchange(everybody(), 1.0))) == ["a", "c"]
    assert signs[:3] == [("a", "here"), ("b", "here"), ("c", "here")], "who is in the job"
    assert [sign for site, sign in signs[3:] if site == "b"] == ["here", "working", "gone"]
    assert {sign for site, sign in signs[3:] if site != "b"} == {"here"}
    lines = (one._folder / nvflare.LOG).read_text().splitlines()
    events = [json.loads(line)["event"] for line in lines]
    assert "working" not in events, "it would be a line every few seconds"


def test_who_was_silent_and_works_again_costs_no_job(courier):
    def play(job, site, number, body):
        if site != "b":
            return [answer(site, number)]
        threading.Timer(0.5, lambda: later(job, number)).start()
        return [answer(site, number, event="silent"), answer(site, number, event="working")]

    def later(job, number):
        server.jobs[job].up(*answer("b", number, b"healed"))

    one, server = courier(play)
    assert dict(one.exchange(everybody(), 10))["b"] == b"healed"
    assert len(server.jobs) == 1


def test_who_is_silent_and_gone_costs_no_job(courier):
    def play(job, site, number, body):
        if site == "b":
            server.here.discard("b")
            return [answer(site, number, event="silent")]
        return [answer(site, number)]

    one, server = courier(play)
    assert sorted(dict(one.exchange(everybody(), 1.0))) == ["a", "c"]
    assert len(server.jobs) == 1


def test_who_comes_late_is_taken_in_even_while_another_works_but_not_again_and_again(courier):
    working = threading.Event()

    def play(job, site, number, body):
        if site == "c":
            return [answer(site, number)] if working.is_set() else []
        silent = site == "b" and job < 2
        return [answer(site, number, event="silent" if silent else "answer")]

    one, server = courier(play)
    exchange = one.exchange(everybody(), 1.5)
    assert [site for site, _ in exchange] == ["a"]
    assert len(server.jobs) == 2, "b was silent in both, and the second was not interrupted"
    working.set()
    assert sorted(dict(one.exchange({"b": b"order", "c": b"order"}, 10))) == ["b", "c"]


def test_a_site_that_is_not_there_does_not_hold_up_the_others(courier):
    one, server = courier(lambda job, site, n, body: [answer(site, n)])
    server.here = {"a", "c"}
    exchange = one.exchange(everybody(), 10)
    assert sorted(next(exchange)[0] for _ in range(2)) == ["a", "c"]
    server.here = set(SITES)
    assert next(exchange)[0] == "b"
    assert [job.sites for job in server.jobs] == [["a", "c"], ["a", "b", "c"]]
    assert ("b", b"order") not in server.jobs[0].orders, "it is not in that job"


def test_a_server_that_is_away_is_waited_for(courier, tmp_path):
    one, server = courier(lambda job, site, n, body: [answer(site, n)])
    server.away = 3
    assert sorted(dict(one.exchange(everybody(), 10))) == list(SITES)
    log = (tmp_path / "run" / nvflare.LOG).read_text().splitlines()
    assert [json.loads(line)["event"] for line in log].count("no job") == 3


def test_nobody_answers_where_the_server_stays_away(courier):
    one, server = courier(lambda job, site, n, body: [answer(site, n)])
    server.away = 10_000
    begun = time.monotonic()
    assert list(one.exchange(everybody(), 0.5)) == []
    assert time.monotonic() - begun < 3.0
    assert server.jobs == []


def test_an_order_for_nobody_of_this_run_is_refused(courier):
    one, server = courier(lambda job, site, n, body: [answer(site, n)])
    with pytest.raises(ValueError, match="x, y are not of this run"):
        list(one.exchange({"a": b"order", "y": b"order", "x": b"order"}, 10))
    assert server.jobs == []


def test_who_is_revoked_meanwhile_is_neither_waited_for_nor_heard(courier):
    def play(job, site, number, body):
        if site == "b":
            server.keys.pop("b", None)
            return [answer(site, number, b"too late")]
        return [answer(site, number)] if site == "a" or "b" not in server.keys else []

    one, server = courier(play)
    begun = time.monotonic()
    assert dict(one.exchange(everybody(), 60)).keys() == {"a", "c"}
    assert dict(one.exchange(everybody(b"another"), 60)).keys() == {"a", "c"}
    assert time.monotonic() - begun < 20
    assert ("b", b"another") not in server.jobs[0].orders


def test_jobs_that_a_killed_coordinator_left_are_ended(courier):
    one, server = courier(lambda job, site, n, body: [answer(site, n)])
    server.left_over = ["old"]
    assert sorted(dict(one.exchange(everybody(), 10))) == list(SITES)
    assert server.aborted == ["old"]


def test_closing_gives_up_what_is_out(courier):
    seen = queue.SimpleQueue()

    def play(job, site, number, body):
        seen.put(site)
        return [answer(site, number)] if site == "a" else []

    one, server = courier(play)
    going = one.exchange(everybody(), 10)
    assert next(going)[0] == "a"
    going.close()
    end = time.monotonic() + 10
    while (None, b"") not in server.jobs[0].orders:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert len(server.jobs) == 1


def test_two_runs_of_one_coordinator_do_not_end_each_others_jobs(tmp_path):
    names = {NvflareCourier(tmp_path / "kit", KEYS, tmp_path / run)._name for run in "xy"}
    assert len(names) == 2


@pytest.mark.parametrize(
    "torn", [b"", b"\xff" * 20, b"\0\0\0\0\0\0\0\x06\0\0\0\x02{}\0\0\0\0\0\0\0\0"]
)
def test_a_call_that_is_no_controllers_is_no_job(courier, monkeypatch, torn):
    def run(job):
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(job.path)
            link.sendall(torn)

    monkeypatch.setattr(Job, "run", run)
    one, server = courier(None)
    assert list(one.exchange(everybody(), 0.5)) == []
    assert server.aborted


@pytest.mark.parametrize("content", [None, "", "{}", "[]", '{"admin": 1}'])
def test_what_is_no_kit_is_refused_in_words(tmp_path, content):
    if content is not None:
        (tmp_path / "startup").mkdir()
        (tmp_path / "startup" / "fed_admin.json").write_text(content)
    with (
        pytest.raises(ValueError, match="no coordinator's kit of NVIDIA FLARE"),
        NvflareCourier(tmp_path, KEYS, tmp_path / "run"),
    ):
        pass


def test_where_flare_is_not_installed_the_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "startup").mkdir()
    admin = {"admin": {"username": "lead@coord.org"}}
    (tmp_path / "startup" / "fed_admin.json").write_text(json.dumps(admin))
    monkeypatch.setitem(__import__("sys").modules, "nvflare.fuel.flare_api.flare_api", None)
    with pytest.raises(ValueError, match=r"pip install 'silotune\[nvflare\]'"):
        Engine(Path(tmp_path)).connect()
