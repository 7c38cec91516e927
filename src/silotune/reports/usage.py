"""Programs that use what a run has made without silotune: templates, one a kind of model.

Each is executed by a test. They need torch and transformers, and peft for an adapter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from silotune.data.chat_templates import instruction, prompt_lines
from silotune.objectives import find
from silotune.runs.facts import Summary

Constants = Mapping[str, Sequence[float]]

HELLO = "Say hello."

_LABELS_IN_A_LINE, _LINE = 80, 88
"""Characters of labels up to which they stand in one line, and of a line where they do not."""


def adapter_program(
    summary: Summary, labels: Sequence[str], adapter: str = "path/to/adapter"
) -> str:
    """A Python program that loads an adapter with peft and uses it.

    Args:
        summary: of the run that made it.
        labels: in order of their ids; not looked at for a language model.
        adapter: its folder.
    """
    name = summary.base_model
    return _render(
        f"adapter_{_kind(summary.task, summary.pooling)}",
        adapter=adapter,
        base=name if is_hub_name(name) else f"path/to/{public_name(name)}",
        labels=list(labels) if find(summary.task).head else None,
        max_length=summary.max_length,
        pooling=summary.pooling,
        **_answers(summary.task, summary.constants, standardised=True),
        **_question(summary.parts, summary.source_prefix),
    )


def merged_program(
    task: str,
    pooling: str,
    max_length: int,
    parts: Collection[str],
    constants: Constants | None = None,
    *,
    standardised: bool = False,
    source_prefix: str = "",
) -> str:
    """A Python program that loads a merged model and uses it.

    Args:
        task: of the model.
        pooling: "mean" for a classifier of ours beside its encoder; what makes vectors of texts.
        max_length: tokens of a text that are read.
        parts: of a record, by which a model is asked as it was trained.
        constants: that make answers of outputs, as the objective names them.
        standardised: whether outputs that are numbers are still in standard units.
        source_prefix: what every text to be read begins with.
    """
    return _render(
        f"merged_{_kind(task, pooling)}",
        max_length=max_length,
        pooling=pooling,
        **_answers(task, constants or {}, standardised=standardised),
        **_question(parts, source_prefix),
    )


def is_hub_name(name: str) -> bool:
    """Whether a base model is one of the Hugging Face hub, and no folder."""
    return bool(re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name)) and not Path(name).exists()


def public_name(name: str) -> str:
    """The base model without the folders of the machine that trained it."""
    return name if is_hub_name(name) else Path(name).name


def _kind(task: str, pooling: str) -> str:
    return "mean_pooling" if find(task).own_classifier(pooling) else find(task).template


def _answers(task: str, constants: Constants, *, standardised: bool) -> dict[str, Any]:
    """How outputs become what a user asked for."""
    told = {name: list(numbers) for name, numbers in constants.items()}
    return {"target": find(task).target, "constants": told, "standardised": standardised}


def _question(parts: Collection[str], source_prefix: str) -> dict[str, str]:
    """How a model is asked, in the form of its records."""
    if "source" in parts:
        return {"asked": "source", "prefix": source_prefix}
    if "text_pair" in parts:
        return {"asked": "pair"}
    if "words" in parts:
        return {"asked": "words"}
    if "messages" in parts:
        lines = prompt_lines([{"role": "user", "content": HELLO}])
        return {"asked": "chat", "hello": HELLO, "lines": lines}
    if "input" in parts:
        return {"asked": "instruction", "instruction": instruction(HELLO, None)}
    return {"asked": "text"}


def _render(template: str, **values: Any) -> str:
    return _environment().get_template(f"{template}.py.j2").render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # Python, not HTML: every value is a literal of JSON
        undefined=StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"json": _literal, "json_list": _literals}
    return environment


def _literal(value: object) -> str:
    """A value as Python and JSON both write it."""
    return json.dumps(value, ensure_ascii=False)


def _literals(values: Sequence[str]) -> str:
    """A list in one line, or as many to a line as fit."""
    whole = _literal(values)
    if len(whole) <= _LABELS_IN_A_LINE:
        return whole
    lines = [""]
    for word in map(_literal, values):
        if lines[-1] and len(lines[-1]) + len(word) + 7 > _LINE:
            lines.append("")
        lines[-1] += f"{' ' if lines[-1] else ''}{word},"
    return "\n".join(["[", *(f"    {line}" for line in lines), "]"])
