"""Questions: what a trained model is asked, of records as they were trained or by themselves.

A record is a mapping with the columns of the objective; those that it is learned by may be missing,
and are not looked at. What is wrong is told by its row, and no record is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from silotune.data.chat_templates import instruction, present
from silotune.data.chats import turns
from silotune.data.columns import is_visible
from silotune.data.messages import UnreadableError
from silotune.objectives import Objective, find
from silotune.objectives.task import LEARNED

_NEEDED = ("text", "words", "prompt", "source", "messages", "image", "text_pair")
"""Parts of which one at least must hold something, and each where texts are compared."""


def asked_columns(objective: Objective, there: Collection[str]) -> dict[str, str]:
    """Part -> its column, of those that a model reads when it is used.

    Args:
        objective: by which it was trained.
        there: columns of the records; a text that is read apart from a first one may be missing.
    """
    alone = {part: c for part, c in objective.columns.items() if part not in LEARNED}
    apart = find(objective.task).apart
    return {part: str(c) for part, c in alone.items() if part not in apart or c in there}


def questions(objective: Objective, records: Sequence[Any], where: str = "records") -> list[Any]:
    """What a model is asked of each record.

    Args:
        objective: by which it was trained.
        records: mappings, of which a text, a pair (text, text_pair), a list of words, an image or
            a chat is made; anything else is a question itself.
        where: what they are called in an error.

    Returns:
        Texts, pairs, lists of words, images, or chats.

    Raises:
        ValueError: naming the first row that holds nothing, or something of another kind.
    """
    each = all if find(objective.task).embeds else any
    return [
        _question(
            asked_columns(objective, record), record, f"row {row} (the first is 0) of {where}", each
        )
        if isinstance(record, Mapping)
        else record
        for row, record in enumerate(records)
    ]


def spoken(objective: Objective, text: str) -> Any:
    """A text that somebody types, as the prompt of a record: in a chat, what the user says."""
    if "messages" in objective.columns:
        return [{"role": "user", "content": text}]
    return instruction(text, None) if "input" in objective.columns else text


def _question(
    columns: Mapping[str, str],
    record: Mapping[str, Any],
    where: str,
    enough: Callable[[Iterable[bool]], bool],
) -> Any:
    cells = {part: record.get(column) for part, column in columns.items()}
    for part, cell in cells.items():
        if not _is_kind(part, cell):
            raise ValueError(f"records: {where} holds no {_noun(part)} in {columns[part]!r}")
    if not enough(_says(cells[part]) for part in _NEEDED if part in cells):
        named = " and ".join(repr(columns[part]) for part in _NEEDED if part in cells)
        raise ValueError(f"records: {where} has nothing in {named}; fill it, or take the row out")
    if "messages" in cells:
        return _chat(cells["messages"], where)
    if "input" in cells:
        return instruction(cells["prompt"], cells["input"])
    if "text_pair" in cells:
        return cells["text"] or "", cells["text_pair"] or ""
    return next(iter(cells.values()))


def _chat(cell: Any, where: str) -> list[dict[str, Any]]:
    try:
        chat = [present(turn) for turn in turns(cell)]
    except (UnreadableError, AttributeError, KeyError, TypeError):
        raise ValueError(f"records: {where} holds no chat, a list of {{role, content}}") from None
    if chat[-1].get("role") == "assistant":
        raise ValueError(
            f"records: {where} ends with what the assistant said; leave that turn out to have "
            "it written anew"
        )
    return chat


def _is_kind(part: str, cell: Any) -> bool:
    if cell is None or part == "image":
        return True
    if part == "words":
        return isinstance(cell, list) and all(isinstance(word, str | None) for word in cell)
    return isinstance(cell, list if part == "messages" else str)


def _noun(part: str) -> str:
    return {"words": "list of words", "messages": "chat"}.get(part, "text")


def _says(cell: Any) -> bool:
    if isinstance(cell, str):
        return is_visible(cell)
    if isinstance(cell, list):
        return any(not isinstance(one, str) or is_visible(one) for one in cell if one is not None)
    return cell is not None
