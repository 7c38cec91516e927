"""Messages: what crosses between a coordinator and its sites, whoever carries it.

A message is one byte that tells its kind, then a head, which is JSON, and a body:

    kind, 4 bytes of the head's length, head, body

Orders go to a site and answers come from it. The head of every order that a site works on says how
much of the site's ledger is known, and the body of its answer begins with the lines since: so what
was charged is heard with what it was charged for, and no order is lost without its price.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from silotune_link import frames
from silotune_link.frames import TornMessage, pack, unpack

OFFER, BEGIN, TRAIN, SCORE, ACCOUNT, FINISH = b"O", b"B", b"T", b"S", b"L", b"F"
"""Orders: will you take part; with these; train and give back an update; score at home; what was
charged; take the result."""

ACCEPTED, RESULT, WHOLE, REFUSED = b"A", b"R", b"W", frames.REFUSED
"""Answers: yes; an update; the word that what the order leans on is not here, so send all of it;
no, and a code that says why."""

REFUSALS = {
    "policy": "its policy does not allow it",
    "approval": "nobody has approved it there yet",
    "model": "it has no base model of this digest",
    "versions": "its software does not fit",
    "data": "its records do not fit",
    "budget": "its budget is spent",
    "order": "it was asked for what was not agreed",
    "ledger": "its ledger is not the one that was told",
    "certificate": "the certificate is not what its ledger says",
    "failed": "it failed, and the reason stays there",
    "busy": "it works for another run",
}
"""Code -> words. A site sends a code and no text of its own, as that could be of a record; after a
colon may stand a key of its policy or a field of the order."""


class Message(NamedTuple):
    """One message, taken apart."""

    kind: bytes
    head: Mapping[str, Any]
    body: bytes


def message(kind: bytes, head: Mapping[str, Any] | None = None, body: bytes = b"") -> bytes:
    """A message as it is carried."""
    return kind + pack(dict(head or {}), body)


def opened(data: bytes) -> Message | None:
    """A message taken apart; None if it is none."""
    try:
        head, body = unpack(data[1:])
    except TornMessage:
        return None
    return Message(data[:1], head, body)


def with_lines(lines: bytes, body: bytes = b"") -> tuple[dict[str, int], bytes]:
    """Head and body of an answer that tells lines of a ledger, and something else behind them."""
    return {"lines": len(lines)}, lines + body


def lines_of(answer: Message) -> tuple[bytes, bytes]:
    """Lines of a ledger, and what stands behind them; no lines if the head says none."""
    size = answer.head.get("lines", 0)
    if type(size) is not int or not 0 <= size <= len(answer.body):
        return b"", answer.body
    return answer.body[:size], answer.body[size:]


def refusal(code: str) -> bytes:
    """The answer of a site that does not."""
    return message(REFUSED, {"code": code})


def words(code: object) -> str:
    """What a code means; nothing of what an answer says beyond it, unless it is a plain word."""
    name, _, field = code.partition(":") if isinstance(code, str) else ("", "", "")
    if name not in REFUSALS:
        return "it refused"
    plain = 0 < len(field) <= 60 and all(c.isalnum() or c in "._-" for c in field)
    return REFUSALS[name] + (f" ({field})" if plain and field.isascii() else "")
