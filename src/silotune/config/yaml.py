"""The only door to YAML: safe, by the rules of YAML 1.2, and no key twice.

PyYAML follows YAML 1.1, where ``1e-5`` is text, ``yes`` is true and ``010`` is eight. Here numbers
are decimal, only ``true`` and ``false`` are booleans, and dates stay text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import yaml

KeyPath = tuple[str, ...]
"""Where a value stands: the keys from the top."""

FLOAT = re.compile(
    r"""[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?$
    |[-+]?[0-9]+[eE][-+]?[0-9]+$
    |[-+]?\.(?:inf|Inf|INF)$
    |\.(?:nan|NaN|NAN)$""",
    re.VERBOSE,
)
INT = re.compile(r"[-+]?(?:0|[1-9][0-9]*)$")
BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)$")
RARE_BREAKS = re.compile("[\x85\u2028\u2029]")
NULL = re.compile(r"(?:~|null|Null|NULL|)$")


class Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the plain scalars of YAML 1.2."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 - the name and type are PyYAML's


Loader.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))
Loader.add_implicit_resolver("tag:yaml.org,2002:int", INT, list("-+0123456789"))
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", BOOL, list("tTfF"))
Loader.add_implicit_resolver("tag:yaml.org,2002:null", NULL, ["~", "n", "N", ""])
Loader.add_implicit_resolver("tag:yaml.org,2002:merge", re.compile("<<$"), ["<"])


class Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which also quotes text that our loader would take for a number."""


def _text(dumper: Dumper, text: str) -> yaml.ScalarNode:
    """PyYAML writes the rare line breaks of Unicode so that they come back as spaces: escape."""
    style = '"' if RARE_BREAKS.search(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


Dumper.add_implicit_resolver("tag:yaml.org,2002:float", FLOAT, list("-+.0123456789"))
Dumper.add_representer(str, _text)


def parse(text: str) -> tuple[object, Mapping[KeyPath, int]]:
    """Read one YAML document.

    Returns:
        Its value, and the 1-based line of every key of its mappings.

    Raises:
        yaml.YAMLError: if it is not YAML, holds a key twice or an object that is not plain data.
    """
    loader = Loader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, {}
        lines = dict(_lines(node, (), set()))
        return loader.construct_document(node), lines
    except (ValueError, RecursionError) as error:
        raise yaml.YAMLError(str(error)) from error
    finally:
        loader.dispose()


def write(value: Mapping[str, object]) -> str:
    """The value as block-style YAML, keys in the order given."""
    return yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=96)


def explain(error: yaml.YAMLError) -> tuple[int | None, str]:
    """The 1-based line of a YAML error, if known, and what is wrong, in one line."""
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        text = error.problem or error.context or "not valid YAML"
        return (mark.line + 1 if mark else None), text
    return None, " ".join(str(error).split())


def _lines(node: yaml.Node, path: KeyPath, seen: set[int]) -> Iterator[tuple[KeyPath, int]]:
    """Walk mappings and lists; refuse a key that stands in one mapping twice."""
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield from _lines(item, (*path, str(i)), seen)
    if not isinstance(node, yaml.MappingNode):
        return
    keys: dict[str, int] = {}
    for key, value in node.value:
        name, line = str(key.value), key.start_mark.line + 1
        if name in keys:
            raise yaml.MarkedYAMLError(
                problem=f"the key {name} stands there twice (first in line {keys[name]}); keep one",
                problem_mark=key.start_mark,
            )
        keys[name] = line
        yield (*path, name), line
        yield from _lines(value, (*path, name), seen)
