"""The daemon, in processes of their own, with a trainer that echoes."""

import io
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from silotune_link.daemon import FAILED, KEPT, Daemon, ask
from silotune_link.frames import REFUSED, read_frame, unpack, write_frame
from silotune_link.payload import IN_MEMORY, Payload
from silotune_link.process import ProcessStopped

ECHO = [sys.executable, str(Path(__file__).parent / "echo.py")]
SOURCES = str(Path(__file__).parents[2] / "src")


class Site:
    """A folder of a site, and the daemon that is started in it."""

    def __init__(self, home: Path) -> None:
        self.home, self.socket = home, home / "site.sock"
        self.log = home / "trainer.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, command=ECHO, before=()) -> subprocess.Popen[bytes]:
        words = ["-m", "silotune_link.daemon", str(self.socket), str(self.log), *command]
        path = os.pathsep.join([SOURCES, os.environ.get("PYTHONPATH", "")])
        self.process = subprocess.Popen(
            [*before, sys.executable, *words],
            env=os.environ | {"PYTHONPATH": path},
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        until(lambda: listens(self.socket) or self.process.poll() is not None)
        return self.process

    def ask(self, order: bytes) -> bytes:
        return ask(self.socket, order)

    def most_memory(self) -> int:
        """kB that the daemon has held at once."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1])

    def end(self, how=signal.SIGKILL) -> tuple[int, str]:
        self.process.send_signal(how)
        _, complaints = self.process.communicate(timeout=20)
        return self.process.returncode, complaints.decode()


def payload(data: bytes, folder: Path) -> Payload:
    pipe = io.BytesIO()
    write_frame(pipe, data)
    pipe.seek(0)
    return Payload(pipe, folder)


def until(true: Callable[[], bool], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as link:
        try:
            link.connect(str(path))
        except OSError:
            return False
    return True


def alive(pid: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def folder() -> Iterator[Site]:
    """Near the root: a socket's path is short."""
    with tempfile.TemporaryDirectory(prefix="link-") as home:
        site = Site(Path(home))
        try:
            yield site
        finally:
            if site.process and site.process.poll() is None:
                site.end()


@pytest.fixture
def site() -> Iterator[Site]:
    with folder() as one:
        yield one


@pytest.fixture(scope="module")
def served() -> Iterator[Site]:
    """One for all tests that leave it as it was."""
    with folder() as one:
        one.start()
        yield one


def test_it_answers_what_its_trainer_says(served):
    big = os.urandom(3_000_000)
    assert served.ask(big).endswith(b" " + big)
    assert served.ask(b"") == served.ask(b"")


def test_the_same_order_is_worked_on_once_whoever_asks_and_when(served, tmp_path):
    order = f"wait {tmp_path / 'go'}".encode()
    with ThreadPoolExecutor(5) as pool:
        asked = [pool.submit(served.ask, order) for _ in range(5)]
        time.sleep(0.3)
        assert not any(one.done() for one in asked)
        (tmp_path / "go").touch()
        answers = {one.result(timeout=60) for one in asked}
    assert len(answers) == 1
    assert {served.ask(order)} == answers


def test_different_orders_at_once_are_worked_on_one_after_the_other(served):
    orders = [f"order {i}".encode() for i in range(20)]
    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(served.ask, orders))
    numbers = [int(answer.split()[0]) for answer in answers]
    assert [a.partition(b" ")[2] for a in answers] == orders
    assert sorted(numbers) == list(range(min(numbers), min(numbers) + 20))


def test_it_keeps_a_few_answers(served):
    first = served.ask(b"kept 0")
    for i in range(1, KEPT):
        served.ask(f"kept {i}".encode())
    assert served.ask(b"kept 0") == first
    served.ask(b"one more")
    assert served.ask(b"kept 0") != first


def test_an_order_outlives_whoever_brought_it(served, tmp_path):
    order = f"wait {tmp_path / 'go'}".encode()
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(served.socket))
        with link.makefile("wb") as pipe:
            write_frame(pipe, order)
        time.sleep(0.2)
    (tmp_path / "go").touch()
    after = int(served.ask(b"next").split()[0])
    assert int(served.ask(order).split()[0]) == after - 1


def test_a_trainer_that_dies_is_started_again_and_given_the_same_order(served, tmp_path):
    order = f"die once {tmp_path / 'died'}".encode()
    assert served.ask(order) == b"1 " + order


def test_three_deaths_are_a_refusal_and_the_next_order_is_served(served):
    answer = served.ask(b"die")
    assert answer == FAILED
    assert answer[:1] == REFUSED
    assert unpack(answer[1:]) == ({"code": "failed"}, b"")
    assert served.ask(b"after") == b"1 after"


def test_a_trainer_killed_while_it_works_is_given_its_order_again(served, tmp_path):
    pid = int(served.ask(b"pid"))
    order = f"wait {tmp_path / 'go'}".encode()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(served.ask, order)
        time.sleep(0.2)
        os.kill(pid, signal.SIGKILL)
        (tmp_path / "go").touch()
        assert asked.result(timeout=60).endswith(order)
    assert not alive(pid)


@pytest.mark.parametrize(
    "torn",
    [b"", b"\0\0", b"\0\0\0\0\0\0\0\x09half", b"\xff" * 40, b"GET / HTTP/1.1\r\n\r\n"],
)
def test_what_is_torn_is_left_alone_and_others_are_served(served, torn):
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(served.socket))
        link.sendall(torn)
        link.shutdown(socket.SHUT_WR)
        link.settimeout(20)
        assert link.recv(1) == b"", "the daemon has hung up"
    assert served.ask(b"well formed").endswith(b"well formed")


def test_several_orders_come_through_one_connection(served):
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(served.socket))
        with link.makefile("rwb") as pipe:
            for order in (b"one", b"two"):
                write_frame(pipe, order)
                assert read_frame(pipe).endswith(order)


def test_it_is_for_its_user_alone_and_small(served):
    served.ask(b"warm")
    assert stat.S_IMODE(served.socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(served.log.stat().st_mode) == 0o600
    assert served.most_memory() < 30_000


def test_it_stays_small_whatever_it_carries_and_leaves_nothing_in_its_folder(site):
    """Orders and answers of 32 MB each, the last few of which wait."""
    site.start()
    site.ask(b"warm")
    before = set(site.home.iterdir())
    orders = [os.urandom(32_000_000) for _ in range(KEPT)]
    answers = [site.ask(order) for order in orders]
    assert all(a.endswith(o) for a, o in zip(answers, orders, strict=True))
    assert site.ask(orders[0]) == answers[0], "worked on once"
    assert site.most_memory() < 30_000
    assert set(site.home.iterdir()) == before


def test_an_answer_that_the_disk_has_no_room_for_is_a_refusal(site):
    blocks = IN_MEMORY // 512  # which is enough for an order that needs no file
    site.start(before=["sh", "-c", f'ulimit -f {blocks} && exec "$@"', "sh"])
    order = bytes(IN_MEMORY)
    assert site.ask(order[2:]) == b"1 " + order[2:]
    assert site.ask(order[:-1]) == FAILED, "its answer has two bytes more"
    with pytest.raises(ConnectionError, match="gave no answer"):
        site.ask(bytes(2 * IN_MEMORY))
    _, said = site.end()
    assert "died 3 times in a row ([Errno 27] File too large)" in said


@pytest.mark.parametrize(("how", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
@pytest.mark.usefixtures("hearing")
def test_its_trainer_ends_with_it_in_the_middle_of_an_order(site, tmp_path, how, code):
    site.start()
    pid = int(site.ask(b"pid"))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(site.ask, f"wait {tmp_path / 'never'}".encode())
        time.sleep(0.2)
        assert site.end(how) == (code, "")
        with pytest.raises(ConnectionError, match="gave no answer"):
            asked.result(timeout=20)
    assert not alive(pid)
    assert not site.socket.exists()


def test_it_is_there_again_after_it_was_killed(site):
    site.start()
    pid = int(site.ask(b"pid"))
    site.end()
    until(lambda: not alive(pid))
    assert site.socket.exists(), "stale: nobody listens"
    with pytest.raises(ConnectionError, match="no daemon listens at"):
        site.ask(b"order")
    site.start()
    assert site.ask(b"order") == b"1 order"


def test_a_second_daemon_is_refused_and_the_first_goes_on(site):
    site.start()
    first = site.process
    second = site.start()
    _, complaints = second.communicate(timeout=20)
    assert second.returncode == 1
    assert f"another daemon serves {site.socket}" in complaints.decode()
    assert "Traceback" not in complaints.decode()
    site.process = first
    assert site.ask(b"order") == b"1 order"


def test_what_is_no_socket_is_not_taken_away(site):
    site.socket.write_text("notes")
    process = site.start()
    _, complaints = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "no socket can be made here" in complaints.decode()
    assert site.socket.read_text() == "notes"


def test_a_trainer_that_cannot_start_is_a_refusal(site):
    """What it says on its standard output is no frame, at which it is ended."""
    told = "import sys; print('site.yaml: gone', file=sys.stderr); print('Loading')"
    site.start([sys.executable, "-c", told])
    assert site.ask(b"order") == FAILED
    assert "site.yaml: gone" in site.log.read_text()
    site.end()
    site.start(["/nowhere/python"])
    assert site.ask(b"order") == FAILED


def test_a_trainer_is_warm_before_the_first_order(site, tmp_path):
    site.start(["sh", "-c", f"touch {tmp_path / 'warm'}; exec {' '.join(ECHO)}"])
    until((tmp_path / "warm").exists)


def test_a_path_that_no_socket_can_have_is_refused_in_words(tmp_path):
    path = tmp_path / ("x" * 104)
    for use in (lambda: Daemon(path, ECHO, tmp_path / "log"), lambda: ask(path, b"")):
        with pytest.raises(ValueError, match="103 bytes at most"):
            use()


def test_nobody_there_is_said_in_words(tmp_path):
    with pytest.raises(ConnectionError, match="no daemon listens at"):
        ask(tmp_path / "none.sock", b"")


def test_an_order_that_a_stopped_daemon_leaves_is_no_refusal(tmp_path):
    """Whoever brought it brings it again, to the daemon that comes next."""
    with folder() as site, ThreadPoolExecutor(2) as pool:
        daemon = Daemon(site.socket, ECHO, site.log)
        order = payload(f"wait {tmp_path / 'never'}".encode(), site.home)
        asked = [pool.submit(daemon.answer, order) for _ in range(2)]
        until(lambda: daemon._trainer.pid is not None)
        daemon._trainer.stop()
        for one in asked:
            with pytest.raises(ProcessStopped):
                one.result(timeout=20)


def test_no_thread_waits_for_ever_where_an_answer_is_no_frame():
    """Whatever a trainer does, whoever asks is answered."""
    with folder() as site:
        daemon = Daemon(
            site.socket, ["sh", "-c", "printf '\\0\\0\\0\\0\\0\\0\\0\\1+'; yes"], site.log
        )
        answers: list[Payload | None] = []
        order = payload(b"order", site.home)
        threading.Thread(target=lambda: answers.append(daemon.answer(order))).start()
        until(lambda: answers == [None])
