"""A process is told what it needs before it is asked anything, and so is the one after it."""

import sys
import threading
from concurrent.futures import Future

import pytest

from silotune_link.process import Process, ProcessDied, ProcessStopped, known

SCRIPT = """
import os, sys
from silotune_link.frames import READY, read_frame, write_frame
orders, answers = sys.stdin.buffer, sys.stdout.buffer
told = read_frame(orders) + read_frame(orders)
write_frame(answers, READY)
while True:
    order = read_frame(orders)
    if order == b"die":
        os._exit(9)
    write_frame(answers, told + order)
"""
COMMAND = [sys.executable, "-c", SCRIPT]


def test_every_process_is_told_what_it_needs_as_soon_as_that_is_known():
    later: Future[bytes] = Future()
    process = Process(COMMAND, told=[known(b"one "), later])
    threading.Timer(0.1, later.set_result, [b"two "]).start()
    process.warm()
    try:
        assert process.pid is not None
        assert process.ask(b"three") == b"one two three"
        with pytest.raises(ProcessDied):
            process.ask(b"die")
        assert process.ask(b"four") == b"one two four", "which another one was told too"
    finally:
        process.stop()


def test_a_start_that_waits_is_given_up_when_nothing_comes():
    never: Future[bytes] = Future()
    process = Process(COMMAND, told=[known(b"one "), never])
    start = threading.Thread(target=process.warm)
    start.start()
    process.stop()
    never.cancel()
    start.join(timeout=30)
    assert not start.is_alive()
    assert process.pid is None
    with pytest.raises(ProcessStopped):
        process.ask(b"three")
