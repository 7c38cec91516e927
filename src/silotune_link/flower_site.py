"""Flower at a site: hands orders to the site's socket. A process that a SuperNode starts runs it.

Flower starts it anew for every message, so it holds nothing. Where the socket is comes from the
SuperNode's own ``--node-config``, never from a run. It does not wait for training: after a while it
says that work goes on, and is asked again, so that a site which is gone is noticed.
"""

from __future__ import annotations

import threading
from concurrent.futures import Future
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from typing import Any

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, RecordDict
from flwr.clientapp import ClientApp

from .daemon import ask

WORKING, ANSWER, FAILED = "working", "answer", "failed"
"""States: not done; here it is; this site's socket, or this process, failed."""

SOCKET, WAIT = "socket", "wait"
"""Settings: of the SuperNode, where the site listens; of the run, seconds that a message waits."""

client_app = ClientApp()


@client_app.train()
def order(message: Any, context: Any) -> Any:
    """The answer to one order, or how it stands; nothing of an error but that there is one."""
    try:
        place = Path(str(context.node_config[SOCKET]))
        body = _brought(place, unwrapped(message.content), float(context.run_config[WAIT]))
        content = wrapped(ANSWER, body) if body is not None else wrapped(WORKING)
    except Exception:
        content = wrapped(FAILED)
    return Message(content, reply_to=message)


def wrapped(state: str, body: bytes = b"") -> Any:
    """Bytes as Flower carries them, and a word."""
    array = Array("uint8", (len(body),), "silotune.bytes", body)
    return RecordDict(
        {"head": ConfigRecord({"state": state}), "body": ArrayRecord({"bytes": array})}
    )


def unwrapped(content: Any) -> bytes:
    """The bytes."""
    body: bytes = content["body"]["bytes"].data
    return body


def _brought(place: Path, body: bytes, seconds: float) -> bytes | None:
    """The socket's answer; None if there is none yet."""
    future: Future[bytes] = Future()

    def bring() -> None:
        try:
            future.set_result(ask(place, body))
        except Exception as error:
            future.set_exception(error)

    threading.Thread(target=bring, daemon=True).start()
    try:
        return future.result(timeout=seconds)
    except NotYet:
        return None
