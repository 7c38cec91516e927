"""Assistant turns: where in a chat, as a template writes it, the assistant speaks.

Most templates only add to what stands there, so that a turn is what it adds. Those of models that
think drop what was thought before the last question: an earlier turn is then learned as it stands
in the chat, which is what the model reads of it later.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from operator import eq
from typing import Any

Turn = Mapping[str, Any]
Template = Callable[[Sequence[Turn], bool], str]
"""A tokenizer's chat template: turns, and whether to ask for the assistant's next one -> text."""

_MARK = "\ue000\ue001"
"""For private use in Unicode, so that no template has it."""


class PublicWordsError(ValueError):
    """In words that stand in the template itself, so that they are of no record."""


def rendered(template: Template, turns: Sequence[Turn], asks: bool) -> str:
    """A chat as its template writes it.

    Raises:
        ValueError: if it refuses the chat; never with the chat's own words.
    """
    try:
        return template(turns, asks)
    except PublicWordsError as error:
        raise ValueError(f"the chat template refuses it: {error}") from None
    except Exception as error:  # a template is a program of its own, and may quote the chat
        raise ValueError(f"the chat template refuses it ({type(error).__name__})") from None


def welcome(turns: Sequence[Turn], template: Template) -> Sequence[Turn]:
    """The chat; where the template has no system turn, it opens the first question.

    Raises:
        ValueError: if no question follows it.
    """
    if not turns or turns[0]["role"] != "system" or _has_system(template):
        return turns
    system, *others = turns
    if not others or others[0]["role"] != "user":
        raise ValueError(
            "the chat template has no system turn, and no question follows it that it could open"
        )
    question = f"{system.get('content', '')}\n\n{others[0].get('content', '')}"
    return [{**others[0], "content": question}, *others[1:]]


def spoken(turns: Sequence[Turn], template: Template, text: str) -> list[tuple[int, int]]:
    """The spans ``[start, end)`` of the assistant's turns, with what ends them.

    Args:
        turns: that the template takes.
        template: writes them.
        text: what it writes.

    Raises:
        ValueError: if the template leaves one out.
    """
    spans = list[tuple[int, int]]()
    for i, turn in enumerate(turns):
        if turn["role"] != "assistant":
            continue
        before = rendered(template, turns[:i], True) if i else ""
        until = rendered(template, turns[: i + 1], False)
        added = text.startswith(until) and until.startswith(before)
        span = (len(before), len(until)) if added else _found(turns, i, template, text)
        if span is None or (spans and span[0] < spans[-1][1]):
            raise ValueError(
                "the chat template leaves out what the assistant said earlier; use prompt and "
                "completion"
            )
        spans.append(span)
    return spans


@functools.lru_cache(maxsize=8)
def _has_system(template: Template) -> bool:
    """Whether a system turn is neither refused nor passed over."""
    chat = [{"role": "system", "content": _MARK}, {"role": "user", "content": "Hello."}]
    try:
        return _MARK in template(chat, False)
    except PublicWordsError:
        return False
    except Exception:  # what else it cannot read, it says of the chat itself
        return True


def _found(turns: Sequence[Turn], i: int, template: Template, text: str) -> tuple[int, int] | None:
    """Where a turn stands: all that is another if it says something else, and what ends it."""
    other = {"role": "assistant", "content": _MARK}
    beside = rendered(template, [*turns[:i], other, *turns[i + 1 :]], False)
    if _MARK not in beside or _MARK in text:
        return None
    start = _alike(text, beside)
    rest = beside.partition(_MARK)[2]
    end = len(text) - _alike(text[start:][::-1], rest[::-1])
    if end <= start:
        return None
    closing = rendered(template, [*turns[:i], other], False).partition(_MARK)[2]
    return start, end + len(closing) * text.startswith(closing, end)


def _alike(a: str, b: str) -> int:
    """How many characters two texts begin with alike."""
    return sum(1 for _ in takewhile(bool, map(eq, a, b)))
