"""Signed socket: a site's door for orders that come through an engine which runs others' code.

Whoever reaches it, it answers the coordinator alone, and nobody but the coordinator can use what it
says: orders and answers are signed, and bound to their federation and site, an answer also to its
order and to the number that it was asked with. What is not signed by the coordinator's key has no
answer, and no more of it is read than shows that.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from silotune.keys import Member
from silotune_link.daemon import check_path, listening
from silotune_link.frames import write_frame

from .signed_messages import read_sealed, sealed

ORDER, ANSWER = "order", "answer"

_FOR_A_GROUP = 0o660
"""Mode of the socket: an engine runs as another user than the site; the folder says who enters."""


def about(what: str, federation: str, site: str, order: str = "") -> dict[str, str]:
    """What is signed of a message besides what it holds.

    Args:
        what: ``ORDER`` or ``ANSWER``.
        federation: of both parties.
        site: who is asked, or answers.
        order: of an answer, the SHA-256 of what it answers.
    """
    purpose = f"silotune engine 2 {what}"
    return {"purpose": purpose, "federation": federation, "site": site, "order": order}


def answer_socket(path: Path, member: Member, answer: Callable[[bytes], bytes]) -> None:
    """Answer at a socket until this process ends.

    Args:
        path: of the socket.
        member: who answers, and to whom.
        answer: an order -> its answer; called by several threads.

    Raises:
        OSError: if there can be no socket.
        ValueError: if its path is too long for one.
    """
    check_path(path)
    with listening(path, _FOR_A_GROUP) as listener:
        while True:
            link, _ = listener.accept()
            threading.Thread(target=_talk, args=(link, member, answer), daemon=True).start()


def _talk(link: socket.socket, member: Member, answer: Callable[[bytes], bytes]) -> None:
    """One order; whoever brings none is hung up on."""
    with (
        suppress(EOFError, OSError, MemoryError),
        link,
        link.makefile("rb") as orders,
        link.makefile("wb") as answers,
    ):
        what = about(ORDER, member.federation, member.site)
        order = read_sealed(orders, member.coordinator, what)
        if order is not None:
            what = about(ANSWER, member.federation, member.site, order.digest)
            write_frame(answers, sealed(member.key, what, order.number, answer(order.content)))
