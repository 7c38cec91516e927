"""A site's file to begin with: every key with its meaning, and nothing allowed yet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from textwrap import indent, wrap
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from .site_sections import SiteConfig
from .yaml import write

_WIDTH = 96


def drafted_site(known: Mapping[str, Any]) -> str:
    """The text of a ``site.yaml``; keys that must be set and are not known are left to its owner.

    Args:
        known: values by key, nested as in the file.
    """
    head = [
        "# What this site is, and what it takes part in. Its owner edits it, and nobody else reads",
        "# or writes it. It is read anew for every order. What is not allowed here is refused.",
    ]
    return "\n".join([*head, *_lines(SiteConfig, known)]) + "\n"


def _lines(section: type[BaseModel], known: Mapping[str, Any]) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield ""
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _comment(inner.__doc__ or "")
            yield f"{name}:"
            yield indent("\n".join(_lines(inner, known.get(name, {}))).lstrip("\n"), "  ")
        else:
            yield from _comment(_meaning(field))
            yield from _entry(name, field, known)


def _entry(name: str, field: FieldInfo, known: Mapping[str, Any]) -> Iterator[str]:
    if name not in known and field.is_required():
        yield "# TO BE SET:"
        yield f"# {name}: ..."
        return
    value = known.get(name, field.get_default(call_default_factory=True))
    if isinstance(value, tuple):
        yield f"{name}: [{', '.join(value)}]"
    else:
        yield write({name: value}).rstrip()


def _meaning(field: FieldInfo) -> str:
    example = f" For example {field.examples[0]}." if field.examples else ""
    return f"{field.description or ''}{example}"


def _comment(text: str) -> list[str]:
    return wrap(" ".join(text.split()), _WIDTH - 4, initial_indent="# ", subsequent_indent="# ")
