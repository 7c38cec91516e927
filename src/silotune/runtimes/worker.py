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
) -> None:
    """A worker's life: answer orders until the pipe closes, then die without finishing."""
    responder = Responder(trainer, silos)
    serve_orders(lambda order: _answer(responder, order), pipe_in, pipe_out)


def serve_orders(
    answer: Callable[[bytes], bytes], pipe_in: BinaryIO, pipe_out: BinaryIO
) -> NoReturn:
    """The same for whatever answers orders, which never raises."""
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(pipe_in, inbox), daemon=True).start()
    write_frame(pipe_out, READY)
    while True:
        write_frame(pipe_out, answer(inbox.get()))


def _answer(responder: Responder, order: bytes) -> bytes:
    try:
        return responder.answer(order)
    except (ValueError, OSError, RuntimeError) as error:
        return FAILED + str(error).encode()  # nothing of a private silo's: those do not raise


def _listen(pipe: BinaryIO, inbox: queue.SimpleQueue[bytes]) -> None:
    """Read frames; when the pool is gone, nobody wants this work any more."""
    try:
        while True:
            inbox.put(read_frame(pipe))
    except (EOFError, OSError):
        os._exit(0)
