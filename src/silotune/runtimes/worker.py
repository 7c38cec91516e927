"""Worker: one process of a pool. Orders come in through a pipe, answers go out through another."""

from __future__ import annotations

import os
import queue
import threading
from collections.abc import Callable, Mapping
from typing import BinaryIO, NoReturn

from silotune.core import ClientId
from silotune.engine import Client, LocalTrainer
from silotune_link.frames import READY, read_frame, write_frame

from .pool import FAILED
from .responder import Responder


def serve(
    trainer: LocalTrainer, silos: Mapping[ClientId, Client], pipe_in: BinaryIO, pipe_out: BinaryIO
) -> NoReturn:
    """A worker's life: answer orders until the pipe closes, then die without finishing."""
    responder = Responder(trainer, silos)
    serve_orders(in_words(responder.answer), frames(pipe_in), pipe_out)


def frames(pipe: BinaryIO) -> Callable[[], bytes]:
    """What comes through a pipe, one frame a call; when it closes, this process ends at once."""
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe, inbox), daemon=True).start()
    return inbox.get


def serve_orders(
    answer: Callable[[bytes], bytes], take: Callable[[], bytes], pipe_out: BinaryIO
) -> NoReturn:
    """The same for whatever answers orders, which never raises.

    Args:
        answer: to an order.
        take: waits for the next one (``frames``).
        pipe_out: where answers go.
    """
    write_frame(pipe_out, READY)
    while True:
        write_frame(pipe_out, answer(take()))


def in_words(answer: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    """The same answers; what fails is told. Of a private silo nothing does: its errors stay."""

    def told(order: bytes) -> bytes:
        try:
            return answer(order)
        except (ValueError, OSError, RuntimeError) as error:
            return FAILED + str(error).encode()

    return told


def _listen(pipe: BinaryIO, inbox: queue.SimpleQueue[bytes]) -> None:
    """Read frames; when the pool is gone, nobody wants this work any more."""
    try:
        while True:
            inbox.put(read_frame(pipe))
    except (EOFError, OSError):
        os._exit(0)
