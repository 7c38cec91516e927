"""A site's door for engines that run others' code: it answers the coordinator, and nobody else."""

import os
import socket
import stat
import tempfile
import threading
import time
from pathlib import Path

import pytest

from runtimes.parties import COORDINATOR, FEDERATION, key, member
from silotune.keys import public_of
from silotune.runtimes.signed_files import digest_of
from silotune.runtimes.signed_messages import sealed, unsealed
from silotune.runtimes.signed_socket import ANSWER, ORDER, about, answer_socket
from silotune_link.daemon import ask
from silotune_link.frames import write_frame

WEST = member("west")


class Door:
    """A socket that answers, and what it was asked."""

    def __init__(self, path: Path) -> None:
        self.path, self.asked = path, []
        threading.Thread(target=answer_socket, args=(path, WEST, self.answer), daemon=True).start()
        end = time.monotonic() + 10
        while not path.is_socket():
            assert time.monotonic() < end
            time.sleep(0.01)

    def answer(self, order: bytes) -> bytes:
        self.asked.append(order)
        return b"R" + order


@pytest.fixture(scope="module")
def door():
    with tempfile.TemporaryDirectory(prefix="d-") as folder:
        yield Door(Path(folder) / "west.sock")


def order(
    content=b"T", *, by=COORDINATOR, number=7, federation=FEDERATION, site="west", what=ORDER
):
    return sealed(by, about(what, federation, site), number, content)


def opened(message: bytes, content=b"T", by="west"):
    what = about(ANSWER, FEDERATION, "west", digest_of(content))
    return unsealed(message, public_of(key(by)), what)


def test_an_order_is_answered_in_the_sites_name_with_its_number(door):
    answer = opened(ask(door.path, order()))
    assert (answer.number, answer.content) == (7, b"RT")
    large = b"x" * 3_000_000
    assert opened(ask(door.path, order(large, number=8)), large).content == b"R" + large


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"T",
        b"\0" * 112 + b"T",
        order() + b"more",
        order(by=key("a stranger")),
        order(by=WEST.key),
        order(site="east"),
        order(federation="another"),
        order(what=ANSWER),
        order()[:-1] + b"S",
        order(number=7)[:7] + b"\x08" + order(number=7)[8:],
    ],
)
def test_what_the_coordinator_did_not_sign_for_this_site_has_no_answer(door, message):
    before = list(door.asked)
    with pytest.raises(ConnectionError, match="gave no answer"):
        ask(door.path, message)
    assert door.asked == before


def test_no_more_is_read_than_the_coordinator_has_signed(door):
    """A stranger would fill the site's memory; the head of an old order does not help."""
    before = list(door.asked)
    for head in (os.urandom(112), order(by=key("a stranger"))[:112], order()[:112]):
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(door.path))
            link.settimeout(30)
            link.sendall((1 << 35).to_bytes(8, "big") + head)
            assert link.recv(1) == b"", "it hangs up, and waits for nothing"
    assert door.asked == before


def test_who_brings_no_frame_stops_nobody(door):
    for torn in (b"", b"\xff" * 9, b"\0" * 7):
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(door.path))
            link.sendall(torn)
    assert opened(ask(door.path, order(b"still there")), b"still there")


def test_many_are_answered_at_once(door):
    with socket.socket(socket.AF_UNIX) as idle, idle.makefile("wb") as pipe:
        idle.connect(str(door.path))
        pipe.write(b"\0")
        pipe.flush()
        assert opened(ask(door.path, order(b"2")), b"2")
        write_frame(pipe, b"")


def test_an_answer_holds_for_its_order_and_its_site_alone(door):
    answer = ask(door.path, order())
    assert opened(answer, b"another") is None
    assert opened(answer, by="east") is None
    assert opened(answer[:-1] + b"S") is None


def test_an_engine_of_the_same_group_may_enter(door):
    assert stat.S_IMODE(door.path.stat().st_mode) == 0o660
