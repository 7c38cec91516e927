"""Chats: the shapes in which data sets keep turns, as one: ``{role, content}`` with plain text.

Contents may come in parts (``[{"type": "text", "text": ...}]``), and turns as ShareGPT has them
(``{"from": "human", "value": ...}``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from datasets import List, Value

from .messages import UnreadableError

_NAMES = {"from": "role", "value": "content"}
"""ShareGPT's names of what others call otherwise."""

_ROLES = {"human": "user", "gpt": "assistant"}
"""The same of roles."""

_TEXT_PART = "text"

_KNOWN = ("system", "user", "assistant", "tool")
"""What chat templates know; a role of ShareGPT that is none of these is asked about."""


def is_chat(feature: object) -> bool:
    """Whether a column holds chats, in one of these shapes."""
    turn = feature.feature if isinstance(feature, List) else None
    if not isinstance(turn, dict):
        return False
    names = {_NAMES.get(name, name): kind for name, kind in turn.items()}
    return {"role", "content"} <= set(names) and _is_content(names["content"])


def plain_chat(value: object) -> object:
    """A chat with plain contents, as far as they are of text; anything else as it is."""
    if not isinstance(value, Sequence) or not all(isinstance(turn, Mapping) for turn in value):
        return value
    try:
        return [{name: _text(name, cell) for name, cell in turn.items()} for turn in value]
    except UnreadableError:
        return value


def turns(chat: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]]:
    """A chat as chat templates read it.

    Args:
        chat: its turns; what a turn does not have may be None.

    Raises:
        UnreadableError: if a content has a part that is no text, or a turn is of somebody unknown.
    """
    return [_turn(turn) for turn in chat or ()]


def _turn(turn: Mapping[str, Any]) -> dict[str, Any]:
    if "from" not in turn:
        return {name: _text(name, cell) for name, cell in turn.items()}
    role = _ROLES.get(turn["from"], turn["from"])
    if role not in _KNOWN:
        raise UnreadableError(
            "a turn is from somebody who is none of human, gpt and system; name its role as chat "
            "templates do"
        )
    named = {_NAMES.get(name, name): _text(name, cell) for name, cell in turn.items()}
    return named | {"role": role}


def _text(name: str, cell: Any) -> Any:
    """What a turn says; other things than that as they are."""
    if _NAMES.get(name, name) != "content" or not isinstance(cell, list):
        return cell
    for part in cell:
        if not isinstance(part, Mapping) or part.get("type", _TEXT_PART) != _TEXT_PART:
            raise UnreadableError("a content has a part that is no text, which is not learned")
    return "".join(part.get(_TEXT_PART) or "" for part in cell)


def _is_content(feature: object) -> bool:
    if isinstance(feature, List):
        part = feature.feature
        return isinstance(part, dict) and _is_text(part.get(_TEXT_PART))
    return _is_text(feature)


def _is_text(feature: object) -> bool:
    return isinstance(feature, Value) and feature.dtype in ("string", "large_string", "null")
