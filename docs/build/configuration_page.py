"""docs/configuration.md, made from the schema: ``python docs/build/configuration_page.py``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin

from annotated_types import Ge, Gt, Lt
from pydantic.fields import FieldInfo

from silotune.config.keys import ALIASES
from silotune.config.messages import kind
from silotune.config.schema import LEAVES, SECTIONS
from silotune.methods.options import common_options, options
from silotune.methods.registry import built_in, takers

HEAD = """\
# The configuration

<!-- Made by `python docs/build/configuration_page.py`; change the schema, not this file. -->

One YAML file says everything about a run. `silotune init` writes a commented one, and
`silotune run FILE key=value ...` runs it. This page lists every key.

- An unknown key, or a key given twice, is an error.
- Overrides are dotted and their values are YAML: `train.num_rounds=3`,
  `method.target_modules=[query, value]`, `privacy.target_epsilon=null`. Later ones win. A whole
  section replaces the one in the file: `data.silos={num: 3, split: iid}`.
- What cannot hold beside an override is dropped from the file: `privacy.unit=none` drops the
  budget, `privacy.noise_multiplier=1` the target epsilon, `data.silos.num=3` the column of silos.
- Numbers are decimal, `1e-5` is a number, and only `true` and `false` are booleans (YAML 1.2).
- Relative paths start at the current working directory, not at the file.
- The resolved configuration, with every default filled in, is written beside the result.
"""

ALIAS_HEAD = """\
## Other names

Names from other tools are accepted and become the home name. Besides, a key of a first-level
section may stand at the top level when only one section has it: `seed: 1` is `train.seed: 1`.

| name | key |
|---|---|
"""


def reference() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    parts += [_section(key) for key in SECTIONS]
    parts.append(_table("## Top level", "", _direct("")))
    parts.append(ALIAS_HEAD + "".join(f"| `{a}` | `{home}` |\n" for a, home in ALIASES.items()))
    return "\n".join(parts)


def _section(key: str) -> str:
    return _table(f"## {key}", (SECTIONS[key].__doc__ or "").strip(), _direct(key))


def _direct(section: str) -> Iterator[str]:
    return (key for key in LEAVES if key.rpartition(".")[0] == section)


def _table(title: str, text: str, keys: Iterator[str]) -> str:
    head = f"{title}\n\n{text}\n\n" if text else f"{title}\n\n"
    rows = "".join(row(key, LEAVES[key], _takers(key)) for key in keys)
    return f"{head}| key | value | default | meaning |\n|---|---|---|---|\n{rows}"


def row(key: str, field: FieldInfo, more: str = "") -> str:
    """A key in a table: what it takes, its default, and what it means.

    Args:
        key: dotted.
        field: of its section.
        more: about its meaning.
    """
    value = ", ".join([kind(field.annotation), *_limits(field)])
    meaning = ((field.description or "") + more).replace("|", "\\|")
    return f"| `{key}` | {value} | {_default(field)} | {meaning} |\n"


def _takers(key: str) -> str:
    """Whose option a key is, and what they do without it."""
    section, _, option = key.rpartition(".")
    if section != "method":
        return ""
    if option in common_options(built_in()["ffa-lora"]):
        return "".join(_otherwise(option))
    by_default: dict[object, list[str]] = {}
    for taker in filter(built_in().__contains__, takers(option)):
        by_default.setdefault(options(built_in()[taker])[option].default, []).append(taker)
    groups = [
        " and ".join(takers) + ("" if default is None else f"; null = {written(default)}")
        for default, takers in by_default.items()
    ]
    return f" For {'. For '.join(groups)}." if groups else ""


def _otherwise(option: str) -> Iterator[str]:
    """Methods whose default is not that of all others."""
    for name, method in built_in().items():
        default = options(method)[option].default
        if default != common_options(method)[option].default:
            word = f"{default:g}" if isinstance(default, float | int) else written(default)
            yield f" Under {name} the default is {word}."


def written(value: object) -> str:
    """A default as YAML has it."""
    return value if isinstance(value, str) else json.dumps(value)


def _limits(field: FieldInfo) -> Iterator[str]:
    for limit in (*field.metadata, *_inside(field.annotation)):
        match limit:
            case Gt(gt=bound):
                yield f"above {bound}"
            case Ge(ge=bound):
                yield f"{bound} or more"
            case Lt(lt=bound):
                yield f"below {bound}"


def _inside(annotation: Any) -> Iterator[object]:
    """Limits of a number that may be null."""
    if get_origin(annotation) in (Union, UnionType):
        for part in get_args(annotation):
            yield from getattr(part, "__metadata__", ())


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default()
    return f"`{written(value)}`"


if __name__ == "__main__":
    print(reference(), end="")
