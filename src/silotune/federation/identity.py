"""Identity: what decides a run, as JSON that no YAML is needed for, its digest, and the way back.

A frozen dataclass becomes its qualified name and its fields. Two runs are the same run exactly if
these agree; what only says where or beside what a run happens is kept beside it, and not compared.

The way back brings in no code: a class of ours is found by its name; any other counts only if the
program has imported it by itself.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from datasets import Dataset

from silotune.core.files import DamagedError, read_json

from .description import Description

CLASS = "__class__"
"""The key that makes an object of a mapping; no mapping of somebody's own may have it."""

BESIDE = "beside"
"""Under this key is what a run happens beside, which decides nothing."""

_TABLE, _SET, _FLOAT = "datasets:Dataset", "builtins:frozenset", "builtins:float"


_PRIVATE = "records.clients."
"""What begins so is of a client's own tables, and is not quoted."""


class NoIdentityError(ValueError):
    """An object that is no frozen dataclass of such: a run of it cannot be recognised again."""


def describe(federation: Description) -> dict[str, Any]:
    """All that decides a run, as JSON values.

    Raises:
        NoIdentityError: naming the object.
    """
    assert federation.learning_rate is None, "a run begins when all is chosen (settling)"
    return {
        "terms": encoded(federation.terms, "terms"),
        "records": encoded(federation.records, "records"),
        "micro_batch_size": federation.machine.micro_batch_size,
    }


def whole(federation: Description) -> dict[str, Any]:
    """What decides a run, and what it happened beside: all that ``described_in`` needs.

    Raises:
        NoIdentityError: naming the object.
    """
    beside = {
        "eval_every": federation.terms.eval_every,
        "device": federation.machine.device,
        "threads": federation.machine.threads,
        "eval_batch_size": federation.machine.eval_batch_size,
        "prefix_cache": federation.machine.prefix_cache,
        "crowd": federation.machine.crowd,
        "baselines": list(federation.baselines),
        "report_to": list(federation.report_to),
        "lifetime": encoded(federation.lifetime, "lifetime"),
    }
    return {**describe(federation), BESIDE: beside}


def decisive(written: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a file of ``whole`` that decides the run."""
    return {key: value for key, value in written.items() if key not in (BESIDE, "version")}


def decided_in(path: Path) -> dict[str, Any]:
    """What decides the run that a file of ``whole`` describes.

    Raises:
        DamagedError: if it is missing or damaged.
    """
    found = decisive(read_json(path))
    if not all(isinstance(found.get(part), Mapping) for part in ("terms", "records")):
        raise DamagedError(f"{path}: damaged, this describes no federation")
    return found


def described_in(path: Path) -> Description:
    """The federation that a file of ``whole`` describes.

    Args:
        path: ``federation.json``.

    Raises:
        ValueError: if it is damaged, names a class that nobody imported, or its records were
            objects, which no file holds.
    """
    return described({**read_json(path), **decided_in(path)}, str(path))


def described(written: Mapping[str, Any], where: str) -> Description:
    """The federation of which this is ``whole``.

    Args:
        written: JSON values.
        where: the file that they come from, for the message.

    Raises:
        ValueError: as ``described_in``.
    """
    try:
        given = {**written["terms"], **written["records"], **written[BESIDE]}
        given["micro_batch_size"] = written["micro_batch_size"]
    except (KeyError, TypeError) as error:
        raise DamagedError(f"{where}: damaged, this describes no federation") from error
    del given[CLASS]
    objects = {name: decoded(value, where) for name, value in given.items()}
    try:
        return Description(**objects)
    except TypeError as error:
        raise ValueError(f"{where}: damaged, this describes no federation: {error}") from error


def digest(federation: Description) -> str:
    """SHA-256 of what decides a run.

    Raises:
        NoIdentityError: naming the object that has none.
    """
    return digest_of(describe(federation))


def digest_of(described: Mapping[str, Any]) -> str:
    """SHA-256 of what ``describe`` gives."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The fields in which two descriptions differ, with both values unless they are of records."""
    before, after = dict(_leaves(old, ())), dict(_leaves(new, ()))
    paths = [path for path in {**before, **after} if before.get(path) != after.get(path)]
    return [
        path
        if path.startswith(_PRIVATE)
        else f"{path} ({_told(before.get(path))} -> {_told(after.get(path))})"
        for path in paths
    ]


def encoded(value: object, where: str) -> Any:
    """A value as JSON.

    Args:
        value: of plain values, mappings, sequences and frozen dataclasses.
        where: what it is, for the message.

    Raises:
        NoIdentityError: if something in it is none of these.
    """
    match value:
        case Enum():
            code: Any = {CLASS: name_of(type(value)), "value": value.value}
        case float() if not math.isfinite(value):
            code = {CLASS: _FLOAT, "value": str(value)}
        case None | bool() | int() | float() | str():
            code = value
        case Path():
            code = str(value)
        case Dataset():
            code = _table(value.column_names)
        case Mapping() if CLASS in value:
            raise NoIdentityError(f"{where}: {CLASS} has a meaning of its own; take another name")
        case Mapping():
            code = {str(k): encoded(v, f"{where}[{k!r}]") for k, v in value.items()}
        case frozenset() | set():
            each = [encoded(v, where) for v in value]
            code = {CLASS: _SET, "values": sorted(each, key=json.dumps)}
        case Sequence() if value and isinstance(value[0], Mapping):
            code = _table(value[0])
        case Sequence():
            code = [encoded(v, f"{where}[{i}]") for i, v in enumerate(value)]
        case _:
            code = _fields(value, where)
    return code


def decoded(code: Any, where: str, admits: Callable[[str], bool] | None = None) -> Any:
    """The inverse of ``encoded``; a list becomes a tuple.

    Args:
        code: JSON values.
        where: the file that they come from, for the message.
        admits: which classes may be named, ``module:Class``; None = any that can be found.

    Raises:
        ValueError: if a class is not ours and was not imported, is not admitted, or does not take
            its fields.
    """
    if isinstance(code, list):
        return tuple(decoded(value, where, admits) for value in code)
    if not isinstance(code, Mapping):
        return code
    if CLASS not in code:
        return {key: decoded(value, where, admits) for key, value in code.items()}
    if admits is not None and not admits(str(code[CLASS])):
        raise ValueError(f"{where}: names {str(code[CLASS])[:100]!r}, which is not looked for here")
    inner = {key: decoded(value, where, admits) for key, value in code.items() if key != CLASS}
    match code[CLASS]:
        case kind if kind == _FLOAT:
            return float(inner["value"])
        case kind if kind == _SET:
            return frozenset(inner["values"])
        case kind if kind == _TABLE:
            raise ValueError(
                f"{where}: the records of this run were objects of a program, which no file holds; "
                "describe the same federation again, in Python"
            )
        case kind:
            made = _class_named(str(kind), where)
    if admits is not None and not admits(name_of(made)):  # a module has what it imports, too
        raise ValueError(f"{where}: names a class by a place where it is not defined")
    try:
        return made(inner["value"]) if issubclass(made, Enum) else made(**inner)
    except (TypeError, KeyError) as error:
        raise ValueError(f"{where}: {kind} does not take these fields: {error}") from error


def name_of(kind: type) -> str:
    """``module:Class``."""
    return f"{kind.__module__}:{kind.__qualname__}"


def classes(code: Any) -> Iterator[str]:
    """The classes that a description names, ``module:Class``."""
    if isinstance(code, Mapping):
        if CLASS in code:
            yield str(code[CLASS])
        for value in code.values():
            yield from classes(value)
    elif isinstance(code, list):
        for value in code:
            yield from classes(value)


def is_ours(name: str) -> bool:
    """Whether a class is of this package, or plain Python's or a table's."""
    return name.startswith("silotune.") or name in (_TABLE, _SET, _FLOAT)


def _class_named(name: str, where: str) -> type:
    """A frozen dataclass or a set of names, of ours or of a module that is imported already.

    Raises:
        ValueError: in words; nothing outside of this package is imported here.
    """
    module_name, _, qualname = name.partition(":")
    try:
        if is_ours(name) and not module_name.endswith("__main__"):
            module: Any = importlib.import_module(module_name)
        else:
            module = sys.modules[module_name]
        found = module
        for part in qualname.split("."):
            found = getattr(found, part)
    except (KeyError, ImportError, AttributeError):
        raise ValueError(
            f"{where}: {name} is code, which the folder of a run cannot bring in; if you trust it, "
            f"import {module_name or 'its module'} first"
        ) from None
    frozen = is_dataclass(found) and found.__dataclass_params__.frozen  # type: ignore[union-attr]
    if not isinstance(found, type) or not (frozen or issubclass(found, Enum)):
        raise ValueError(f"{where}: {name} is no frozen dataclass, so it is no part of a run")
    return found


def _table(columns: Sequence[str] | Mapping[str, Any]) -> dict[str, Any]:
    """What may be seen of a table; which one it was, its owner keeps (``opening``)."""
    return {CLASS: _TABLE, "columns": sorted(map(str, columns))}


def _fields(value: object, where: str) -> dict[str, Any]:
    if is_dataclass(value) and not isinstance(value, type):
        decisive = [f for f in fields(value) if f.metadata.get("decides", True)]
        inner = {f.name: encoded(getattr(value, f.name), f"{where}.{f.name}") for f in decisive}
        return {CLASS: name_of(type(value)), **inner}
    raise NoIdentityError(
        f"{where}: {type(value).__name__} is no frozen dataclass, so that a run of it could not be "
        "told from another one, and not be resumed; write @dataclass(frozen=True)"
    )


def _leaves(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, str(key)))
    else:
        yield ".".join(path), value


def _told(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
