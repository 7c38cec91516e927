"""``federation status`` of a run, and ``federation watch``: who may look, and at what."""

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from itertools import count
from shutil import which

import pytest

from reports.clinics import rounds
from reports.lookers import HOSTILE, going_on, live, write_looked_at
from silotune.cli.watch import LOOPBACK, served
from silotune.reports.live_view import view_of
from silotune.runs.live import Doing, SiteLive

CHROMIUM = which("chromium") or which("chromium-browser") or which("google-chrome")


@pytest.fixture
def folder(tmp_path):
    return write_looked_at(tmp_path / "run")


@contextmanager
def answering(server):
    """The port of a server, which answers inside."""
    with server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def server_of(folder):
    return answering(served(folder, 0))


def asked(port, path="/", host=None, method="GET"):
    """Status, headers and text."""
    link = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    try:
        link.putrequest(method, path, skip_host=True)
        for name in [f"{LOOPBACK}:{port}"] if host is None else host:
            link.putheader("Host", name)
        link.endheaders()
        answer = link.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        link.close()


def test_the_page_and_its_figures(folder):
    with going_on(folder), server_of(folder) as port:
        status, headers, text = asked(port)
        assert (status, headers["Content-Type"]) == (200, "text/html; charset=utf-8")
        assert "9 of 20<small>training</small>" in text
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers
        assert headers["Server"].strip() == "silotune"
        assert json.loads(asked(port, "/status.json")[2])["round"] == 9
        _, headers, text = asked(port, "/metrics")
        assert headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert "silotune_rounds_done{" in text
        assert asked(port, "/run.json")[0] == 404
        assert asked(port, "/../run.json")[0] == 404
        status, headers, text = asked(port, method="HEAD")
        assert (status, text) == (200, "")
        assert int(headers["Content-Length"]) > 1000


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
def test_there_is_nothing_to_change(folder, method):
    with server_of(folder) as port:
        assert asked(port, method=method)[0] == 501


def test_a_page_of_somebody_else_cannot_read_it(folder):
    """Its browser would bring that page's name along, wherever that name leads."""
    with server_of(folder) as port:
        for host in (
            ["evil.example"],
            [f"evil.example:{port}"],
            ["localhost.evil.example"],
            ["127.0.0.1.evil.example"],
            [""],
            [],
            ["localhost", "evil.example"],
            ["[::1"],
        ):
            status, _, text = asked(port, "/status.json", host)
            assert (status, "triage" in text) == (403, False), host
        for host in (["localhost"], [f"localhost:{port}"], ["localhost:1"], ["[::1]:80"]):
            assert asked(port, "/status.json", host)[0] == 200, host


def test_it_listens_to_its_own_machine_alone(folder):
    with served(folder, 0) as server:
        assert server.server_address[0] == "127.0.0.1"
        with pytest.raises(ValueError, match=r"--port: \d+ cannot be had"):
            served(folder, server.server_port)


def test_a_damaged_folder_is_said_on_the_page(folder):
    folder.live.write_text("{")
    with server_of(folder) as port:
        status, _, text = asked(port)
        assert status == 503
        assert "damaged" in text
        assert asked(port, "/status.json")[0] == 503


def test_status_of_a_run(silotune, folder):
    with going_on(folder):
        result = silotune("federation", "status", folder.path)
    assert result.exit_code == 0
    for words in (
        "triage: round 9 of 20, training",
        "running",
        "trains",
        "since ",
        "accuracy 81.4 %",
    ):
        assert words in result.stdout
    data = json.loads(silotune("federation", "status", folder.path, "--json").stdout)
    assert data["status"].startswith("cut short")
    assert [site["name"] for site in data["sites"]] == ["north", "harbour", "hill"]
    text = silotune("federation", "status", folder.path, "--prometheus").stdout
    assert 'silotune_running{run="triage-7c2f91"} 0' in text


def test_following_ends_with_the_run(silotune, folder):
    lines = silotune("federation", "status", folder.path, "--follow", "--json").stdout.splitlines()
    assert [json.loads(line)["round"] for line in lines] == [9]


def test_following_says_it_again_when_something_changes(silotune, folder, monkeypatch):
    """Looks are at a run that stays as it is, has another round, and has ended."""
    moments = iter([lambda: None, lambda: folder.append_round(rounds()[10]), folder.lock.unlink])
    monkeypatch.setattr("silotune.cli.run_status.time.sleep", lambda _: next(moments)())
    with going_on(folder):
        result = silotune("federation", "status", folder.path, "--follow", "--json")
    views = [json.loads(line) for line in result.stdout.splitlines()]
    assert [(view["round"], view["status"] == "running") for view in views] == [
        (9, True),
        (10, True),
        (10, False),
    ]


def test_names_move_no_cursor_of_a_terminal(silotune, tmp_path):
    sites = {HOSTILE: SiteLive(doing=Doing.REFUSED, order="train", reason=HOSTILE)}
    folder = write_looked_at(tmp_path / "run", live(title=HOSTILE, run=HOSTILE, sites=sites))
    said = silotune("federation", "status", folder.path).stdout
    assert "onerror" in said
    assert "\x1b" not in said
    assert "\u202e" not in said


def test_the_only_run_here_is_meant(silotune, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "found here: none" in silotune("federation", "watch").stderr
    assert "found here: none" in silotune("federation", "status", "--follow").stderr
    one = write_looked_at(tmp_path / "runs" / "one")
    assert silotune("federation", "status", "--prometheus").exit_code == 0
    write_looked_at(tmp_path / "runs" / "two")
    assert "found here: runs/one, runs/two" in silotune("federation", "watch").stderr
    with going_on(one):
        assert silotune("federation", "status", "--prometheus").exit_code == 0


def test_what_is_no_run_is_said(silotune, tmp_path):
    assert "no run over sites is here" in silotune("federation", "watch", tmp_path).stderr
    assert silotune("federation", "status", "--prometheus", "--json").exit_code == 2


def test_watch_serves_until_it_is_told_to_end(folder):
    command = [sys.executable, "-m", "silotune", "federation", "watch", str(folder.path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
        address = process.stdout.readline().partition("http://127.0.0.1:")[2]
        status, _, text = asked(int(address.partition("/")[0]))
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 143
    assert status == 200
    assert "cut short" in text


@pytest.mark.full
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium is installed")
def test_a_browser_shows_what_changes_and_runs_nothing_of_others(tmp_path, monkeypatch):
    """A round ends between its second look and its third."""
    title = "<img src=x onerror=document.title=1>"
    folder, looks = write_looked_at(tmp_path / "run", live(title=title)), count(1)

    def looked_at(one):
        if next(looks) == 3:
            folder.append_round(rounds()[10])
        return view_of(one)

    monkeypatch.setattr("silotune.cli.watch.view_of", looked_at)
    with going_on(folder), server_of(folder) as port:
        command = [CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--dump-dom"]
        command += [f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=8000"]
        command += ["--enable-logging=stderr", f"http://{LOOPBACK}:{port}/"]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "<title>10/20 · &lt;img src=x" in shown.stdout
    assert "10 of 20<small>training</small>" in shown.stdout
    assert "<img" not in shown.stdout
    assert "CONSOLE" not in shown.stderr, "nothing was blocked, and nothing failed"
