"""What keeps a command running: it starts it again, and leaves nothing behind."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from link.test_daemon import SOURCES, alive, until
from silotune_link.keep import kept

NOTES_ITS_NUMBER = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); "
SLEEPS, ENDS, DEAF = (
    "time.sleep(600)",
    "sys.exit(3)",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)",
)


@pytest.fixture(autouse=True)
def _sources(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([SOURCES, os.environ.get("PYTHONPATH", "")]))


def command(file: Path, then: str = SLEEPS) -> list[str]:
    return [sys.executable, "-c", NOTES_ITS_NUMBER + then, str(file)]


def pids(file: Path) -> list[int]:
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def test_it_starts_again_what_was_killed_and_ends_with_who_wants_it(tmp_path):
    file = tmp_path / "pids"
    with kept(command(file), tmp_path / "log") as keeper:
        until(lambda: len(pids(file)) == 1)
        os.kill(pids(file)[0], signal.SIGKILL)
        until(lambda: len(pids(file)) == 2)
        assert keeper.poll() is None
    assert not alive(keeper.pid)
    assert not any(map(alive, pids(file)))
    assert "has ended (code -9); it is started again" in (tmp_path / "log").read_text()


def test_what_ends_at_once_is_started_ever_later(tmp_path):
    file = tmp_path / "pids"
    with kept(command(file, ENDS), tmp_path / "log"):
        until(lambda: len(pids(file)) == 2)
        begun = time.monotonic()
        until(lambda: len(pids(file)) == 3)
        assert time.monotonic() - begun > 0.7
    assert "code 3" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(("then", "code"), [(ENDS, 3), ("os.kill(os.getpid(), 9)", 137)])
def test_what_is_to_run_once_ends_with_its_own_code(tmp_path, then, code):
    file = tmp_path / "pids"
    with kept(command(file, then), tmp_path / "log", once=True) as keeper:
        assert keeper.wait(timeout=60) == code
    assert len(pids(file)) == 1


def test_what_does_not_heed_is_killed(tmp_path, monkeypatch):
    file = tmp_path / "pids"
    with kept(command(file, DEAF), tmp_path / "log"):
        until(lambda: len(pids(file)) == 1)
    assert not alive(pids(file)[0])


@pytest.mark.parametrize("once", [False, True])
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_it_ends_when_who_started_it_is_killed(tmp_path, how, once):
    """However that ends: its end of the pipe closes with it."""
    file = tmp_path / "pids"
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from silotune_link.keep import kept\n"
            f"with kept(sys.argv[1:], once={once}): time.sleep(600)",
            *command(file),
        ],
        start_new_session=True,
    )
    until(lambda: len(pids(file)) == 1)
    parent.send_signal(how)
    parent.wait(timeout=60)
    until(lambda: not alive(pids(file)[0]))


def test_it_ends_all_by_itself_when_it_is_told_to(tmp_path):
    file = tmp_path / "pids"
    with kept(command(file), tmp_path / "log") as keeper:
        until(lambda: len(pids(file)) == 1)
        keeper.send_signal(signal.SIGTERM)
        assert keeper.wait(timeout=60) == 143
    assert not alive(pids(file)[0])


def test_a_command_that_cannot_be_started_is_said_in_words(tmp_path):
    with kept(["/nowhere/at-all"], tmp_path / "log") as keeper:
        assert keeper.wait(timeout=60) == 1
    assert (tmp_path / "log").read_text() == "Error: /nowhere/at-all: No such file or directory\n"
