"""Over real processes of NVIDIA FLARE with TLS on both sides: what a courier owes, and kill -9.

A trainer says how often it was asked, so that work done twice is seen.
"""

import json
import os
import re
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest

from silotune.runtimes.nvflare import NvflareCourier
from silotune.runtimes.nvflare_job import SERVER_CLASS, SITE_CLASS
from silotune.runtimes.nvflare_kits import LEAD, write_kit
from silotune.runtimes.nvflare_loopback import Loopback

pytestmark = [
    pytest.mark.skipif(
        find_spec("nvflare") is None, reason="NVIDIA FLARE is not installed: silotune[nvflare]"
    ),
    pytest.mark.engine,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.xdist_group("one federation of NVIDIA FLARE"),
    pytest.mark.filterwarnings("default"),  # of FLARE's own
]

DEADLINE = 150.0


SITES = ("hosp-1", "hosp-2", "hosp-3")
ECHO = [sys.executable, str(Path(__file__).parents[1] / "link" / "echo.py")]


@pytest.fixture(scope="module")
def federation():
    folder = Path(tempfile.mkdtemp(prefix="flare-"))  # near the root: a socket's path is short
    with Loopback(folder, dict.fromkeys(SITES, ECHO)) as one:
        yield one
    shutil.rmtree(folder, ignore_errors=True)


def opened(federation, folder):
    """The coordinator's kit may lie in a folder of any name."""
    kit = federation.folder / "lead"
    if not kit.exists():
        shutil.copytree(federation.kit, kit)
    return NvflareCourier(kit, federation.keys, folder, poll=0.1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("runs") / "run"


@pytest.fixture(scope="module")
def courier(federation, folder):
    with opened(federation, folder) as one:
        yield one


@pytest.fixture
def go(tmp_path):
    """Orders that wait for a file, and the file."""
    return tmp_path / "go"


def events(folder: Path, kind: str) -> int:
    log = folder / "engine.jsonl"
    lines = log.read_text().splitlines() if log.exists() else []  # no round was before
    return sum(json.loads(line)["event"] == kind for line in lines)


def asked(courier, sites, order=b"how often"):
    """How often the trainer of each site has been given an order."""
    orders = {site: order + os.urandom(8) for site in sites}
    return {s: int(a.split(b" ", 1)[0]) for s, a in courier.exchange(orders, DEADLINE)}


def until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


class Exchange(threading.Thread):
    """One under way."""

    def __init__(self, courier, orders) -> None:
        super().__init__(daemon=True)
        self.courier, self.orders, self.answers, self.seconds = courier, orders, {}, 0.0
        self.start()

    def run(self):
        begun = time.monotonic()
        for site, answer in self.courier.exchange(self.orders, DEADLINE):
            assert site not in self.answers
            self.answers[site] = answer
        self.seconds = time.monotonic() - begun


def test_every_site_answers_its_own_order_once(courier, federation):
    orders = {site: os.urandom(10_000) + site.encode() for site in SITES}
    answers = list(courier.exchange(orders, DEADLINE))
    assert sorted(site for site, _ in answers) == list(SITES)
    assert all(answer.endswith(orders[site]) for site, answer in answers)


@pytest.mark.parametrize("size", [0, (1 << 20) + 1, 12_000_000])
def test_orders_of_any_size_are_carried(courier, size):
    order = os.urandom(size)
    ((site, answer),) = courier.exchange({"hosp-2": order}, DEADLINE)
    assert site == "hosp-2"
    assert answer.partition(b" ")[2] == order


def test_flare_makes_no_text_of_what_arrives():
    """It takes longer than to carry it."""
    from nvflare.fuel.utils.buffer_list import ConsumableBufferList

    from silotune_link.flare_server import CourierController

    CourierController("socket")
    assert len(f"{ConsumableBufferList([bytearray(1 << 20)])}") < 100


def test_the_same_order_again_is_not_worked_on_again(courier):
    orders = {"hosp-1": b"twice", "hosp-3": b"twice"}
    assert dict(courier.exchange(orders, DEADLINE)) == dict(courier.exchange(orders, DEADLINE))


def test_orders_may_be_made_when_they_are_looked_up(courier, federation):
    class Made(dict):
        def __getitem__(self, site):
            return b"made for " + site.encode()

    answers = dict(courier.exchange(Made.fromkeys(SITES), DEADLINE))
    assert {a.partition(b" ")[2] for a in answers.values()} == {
        b"made for " + s.encode() for s in SITES
    }


def test_who_is_late_is_left_out_at_the_deadline_and_answers_later(courier, go):
    orders = {"hosp-1": f"wait {go}".encode(), "hosp-2": b"at once"}
    begun = time.monotonic()
    assert [site for site, _ in courier.exchange(orders, 4.0)] == ["hosp-2"]
    assert 4.0 <= time.monotonic() - begun < 8.0
    go.touch()
    ((site, answer),) = courier.exchange({"hosp-1": orders["hosp-1"]}, DEADLINE)
    assert (site, answer.endswith(orders["hosp-1"])) == ("hosp-1", True)


def test_nothing_is_asked_in_no_time(courier):
    assert list(courier.exchange({"hosp-1": b"too late"}, 0.0)) == []
    assert list(courier.exchange({}, DEADLINE)) == []


def test_closing_gives_up_what_is_out_and_the_next_round_is_whole(courier, federation, go):
    orders = dict.fromkeys(SITES, f"wait {go}".encode()) | {"hosp-2": b"first"}
    going = courier.exchange(orders, DEADLINE)
    assert next(going)[0] == "hosp-2"
    going.close()
    go.touch()
    orders = dict.fromkeys(SITES, b"the next round")
    answers = dict(courier.exchange(orders, DEADLINE))
    assert {a.partition(b" ")[2] for a in answers.values()} == {b"the next round"}
    assert set(answers) == set(SITES)


def disturbed(courier, federation, go, fault):
    """A round in the middle of which something happens; nobody works on its order twice."""
    before = asked(courier, SITES)
    order = f"wait {go}".encode()
    exchange = Exchange(courier, dict.fromkeys(SITES, order))
    time.sleep(1.0)
    fault()
    go.touch()
    exchange.join()
    assert set(exchange.answers) == set(SITES)
    assert {a.partition(b" ")[2] for a in exchange.answers.values()} == {order}
    after = asked(courier, SITES)
    return exchange, {site: after[site] - before[site] for site in before}


def test_a_job_process_killed_at_a_site_costs_another_job_and_no_work(
    courier, federation, folder, go
):
    def fault():
        jobs = federation.jobs("hosp-2")
        assert jobs
        for pid in jobs:
            os.kill(pid, signal.SIGKILL)

    before = events(folder, "job")
    exchange, worked = disturbed(courier, federation, go, fault)
    assert worked == dict.fromkeys(SITES, 2)
    assert events(folder, "job") == before + 1
    assert exchange.seconds < 60


def test_a_whole_site_killed_and_back_takes_part_again(courier, federation, folder, go):
    def fault():
        federation.kill("hosp-3")
        time.sleep(8.0)
        federation.start("hosp-3")

    before = events(folder, "job")
    exchange, worked = disturbed(courier, federation, go, fault)
    assert worked == dict.fromkeys(SITES, 2)
    assert before < events(folder, "job") <= before + 2
    assert exchange.seconds < 90


def test_a_server_killed_and_back_goes_on_with_the_same_round(courier, federation, folder, go):
    def fault():
        federation.kill("localhost")
        time.sleep(6.0)
        federation.start("localhost")

    exchange, worked = disturbed(courier, federation, go, fault)
    assert worked == dict.fromkeys(SITES, 2)
    assert exchange.seconds < 120


def test_a_daemon_killed_and_back_is_given_its_order_again(courier, federation, folder, go):
    def fault():
        federation.kill_daemon("hosp-1")
        federation.start_daemon("hosp-1")

    before = events(folder, "job")
    exchange, worked = disturbed(courier, federation, go, fault)
    assert exchange.answers["hosp-1"] == b"1 " + exchange.orders["hosp-1"]
    assert worked["hosp-2"] == worked["hosp-3"] == 2
    assert events(folder, "job") == before, "the job knows nothing of it"


def test_a_site_that_is_away_does_not_hold_up_the_others_and_comes_in_late(federation, courier, go):
    federation.kill("hosp-1")
    orders = {site: b"who is there" + os.urandom(8) for site in SITES}
    exchange = Exchange(courier, orders)
    until(lambda: {"hosp-2", "hosp-3"} <= set(exchange.answers), 60)
    federation.start("hosp-1")
    exchange.join()
    assert set(exchange.answers) == set(SITES)


def test_a_coordinator_that_was_killed_is_followed_by_another(federation, courier, folder, go):
    """It had a job of its own, and orders out; the next one takes the answers that wait."""
    other = folder.parent / "killed"
    order = f"wait {go}".encode()
    with opened(federation, other) as killed:
        going = killed.exchange({"hosp-1": order, "hosp-2": b"at once"}, DEADLINE)
        assert next(going)[0] == "hosp-2"
        killed._attempt.close()  # all that a killed process still does
        killed._attempt = None
        go.touch()
        with opened(federation, other) as follower:
            answers = dict(follower.exchange({"hosp-1": order}, DEADLINE))
        going.close()
    assert answers["hosp-1"].endswith(order)
    assert set(asked(courier, SITES)) == set(SITES), "the other run goes on"


def job(place: Path, server: str, site: str, code: str = "") -> Path:
    config = place / "app" / "config"
    config.mkdir(parents=True)
    meta = {"name": place.name, "resource_spec": {}, "min_clients": 1}
    server_part = {"id": "it", "path": server, "args": {}}
    if server == SERVER_CLASS:
        server_part["args"] = {"socket_path": "/nowhere.sock"}
    site_part = {"tasks": ["*"], "executor": {"path": site, "args": {}}}
    for name, content in {
        place / "meta.json": meta | {"deploy_map": {"app": ["@ALL"]}},
        config / "config_fed_server.json": {"format_version": 2, "workflows": [server_part]},
        config / "config_fed_client.json": {"format_version": 2, "executors": [site_part]},
    }.items():
        name.write_text(json.dumps(content))
    if code:
        (place / "app" / "custom").mkdir()
        (place / "app" / "custom" / "pushed.py").write_text(code)
    return place


FOREIGN = "nvflare.app_common.np.np_trainer.NPTrainer"
WORKFLOW = "nvflare.app_common.workflows.fedavg.FedAvg"


@pytest.mark.parametrize(
    ("server", "site", "pushed", "who", "words"),
    [
        (SERVER_CLASS, "pushed.Spy", True, "localhost", "BYOC not permitted"),
        (SERVER_CLASS, FOREIGN, False, "hosp-1", f"'{FOREIGN}' .* is not in allow_list"),
        (WORKFLOW, SITE_CLASS, False, "localhost", f"'{WORKFLOW}' .* is not in allow_list"),
        ("pushed.Spy", SITE_CLASS, True, "localhost", "BYOC not permitted"),
    ],
    ids=["code for sites", "another class at sites", "another at the server", "code for it"],
)
def test_pushed_code_and_other_classes_are_refused(
    federation, tmp_path, server, site, pushed, who, words
):
    fate, ran = submitted(federation, tmp_path, who, server, site, pushed)
    assert re.search(words, fate)
    assert not ran


def test_a_site_refuses_code_that_its_server_lets_through(tmp_path):
    """The veto is the site's own: here the server allows its coordinator everything."""
    folder = Path(tempfile.mkdtemp(prefix="flare-"))
    soft = Loopback(folder, {"hosp-1": ECHO})
    policy = {"format_version": "1.0", "permissions": {"lead": "any", "project_admin": "any"}}
    loose = {**soft._made["localhost"], "local/authorization.json": json.dumps(policy)}
    soft._made["localhost"] = loose
    write_kit(soft.kits["localhost"], loose)
    with soft:
        fate, ran = submitted(soft, tmp_path, "hosp-1", SERVER_CLASS, "pushed.Spy", True)
    shutil.rmtree(folder)
    assert "BYOC not permitted" in fate
    assert not ran


def submitted(federation, place, who, server, site, pushed):
    """What FLARE, and whoever is to refuse, say of a job; and whether its code ran."""
    from nvflare.fuel.flare_api.flare_api import new_secure_session

    trace = place / "it ran"
    code = f"open({str(trace)!r}, 'w').close()\nclass Spy: pass\n" if pushed else ""
    before = len(said(federation, who))
    session = new_secure_session(LEAD, str(federation.kit), timeout=10)
    try:
        number = session.submit_job(str(job(place / "job", server, site, code)))
        until(lambda: is_over(session.get_job_meta(number)["status"]), 90)
        fate = str(session.get_job_meta(number))
    finally:
        session.close()
    return fate + said(federation, who)[before:], trace.exists()


def said(federation, who) -> str:
    return (federation.folder / f"{who}.out").read_text()


def is_over(status: str) -> bool:
    return status.startswith("FINISHED")


@pytest.mark.parametrize("look", ["ls_target", "cat_target"])
def test_the_coordinator_cannot_look_around_at_a_site(federation, look):
    from nvflare.fuel.flare_api.flare_api import new_secure_session

    session = new_secure_session(LEAD, str(federation.kit), timeout=10)
    options = {"file": "local/silotune.json"} if look == "cat_target" else {}
    try:
        with pytest.raises(Exception, match="not authorized"):
            getattr(session, look)(federation.names["hosp-1"], **options)
    finally:
        session.close()
