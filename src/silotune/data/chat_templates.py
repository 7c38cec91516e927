"""Chat templates: what a language model reads of a record, and which characters of it carry loss.

All of a plain text; the completion after a prompt; in a chat, what the assistant says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .assistant_turns import Template, Turn, rendered, spoken, welcome

ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request.\n\n### Instruction:\n{instruction}\n\n### Response:\n"
)
ALPACA_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
"""The prompts that https://github.com/tatsu-lab/stanford_alpaca trains on."""


@dataclass(frozen=True)
class Passage:
    """A text with the spans ``[start, end)`` of its characters that carry loss.

    Attributes:
        text: all the model reads.
        spans: in order, not overlapping.
        ends: whether the end-of-text token follows, with loss; a chat template has its own end.
    """

    text: str
    spans: Sequence[tuple[int, int]]
    ends: bool = True

    def learned(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which tokens carry loss: those with a character in a span. Special ones have none."""
        carries = np.zeros(len(self.text), dtype=np.int64)
        for start, end in self.spans:
            carries[start:end] = 1
        before = np.concatenate([[0], np.cumsum(carries)])  # characters with loss before each place
        return before[ends] > before[starts]


def passage(record: Mapping[str, Any], template: Template | None) -> Passage:
    """The passage of a readable record: ``text``, ``prompt`` + ``completion``, or ``messages``.

    A prompt and its completion are joined as they are, without a space between. Without a
    template a chat reads ``role: content``, a line a turn.

    Raises:
        ValueError: if the chat template refuses the chat, or leaves out what the assistant said.
    """
    if "messages" in record:
        turns = [present(turn) for turn in record["messages"]]
        return _templated(turns, template) if template else _lines(turns)
    if "completion" in record:
        prompt, completion = record["prompt"] or "", record["completion"]
        whole = prompt + completion
        return Passage(whole, [(len(prompt), len(whole))])
    return Passage(record["text"], [(0, len(record["text"]))])


def instruction(text: str | None, about: str | None) -> str:
    """The prompt of an instruction, with or without an input, in the words of Stanford Alpaca.

    Args:
        text: the instruction.
        about: its input; None or blank where there is none.
    """
    if about is None or not about.strip():
        return ALPACA.format(instruction=text or "")
    return ALPACA_WITH_INPUT.format(instruction=text or "", input=about)


def prompt_lines(turns: Sequence[Turn]) -> str:
    """A chat without a template, up to where the assistant goes on.

    No space at its end: in training that is a part of the first word.
    """
    return f"{_lines(turns).text}assistant:"


def _lines(turns: Sequence[Turn]) -> Passage:
    text, spans = "", []
    for turn in turns:
        text += f"{turn['role']}: "
        start = len(text)
        text += f"{turn.get('content', '')}\n"
        if turn["role"] == "assistant":
            spans.append((start, len(text)))
    return Passage(text, spans)


def _templated(turns: Sequence[Turn], template: Template) -> Passage:
    turns = welcome(turns, template)
    text = rendered(template, turns, False)
    return Passage(text, spoken(turns, template, text), ends=False)


def present(cell: Any) -> Any:
    """Without what other records alone have: a table gives every turn and call the keys of all."""
    if isinstance(cell, Mapping):
        return {name: present(value) for name, value in cell.items() if value is not None}
    return [present(value) for value in cell] if isinstance(cell, list) else cell
