"""Spies: see every message of a run as bytes, and take each apart down to its last field."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from silotune.core import (
    decode_result,
    decode_task,
    encode_result,
    encode_task,
    state_digest,
    unpack,
)
from silotune.core.files import read_json, read_lines
from silotune.engine import Runtime


class Tapped:
    """A runtime whose messages cross as bytes, and are kept.

    Clients are sent what is new, if they had the round before; ``tasks`` are the same messages
    whole.
    """

    def __init__(self, inner: Runtime) -> None:
        self.inner = inner
        self.tasks: list[bytes] = []
        self.parts: list[bytes] = []
        self.results: list[bytes] = []
        self.held = {}

    def clients(self):
        return self.inner.clients()

    def train(self, tasks):
        return map(self._back, self.inner.train([self._there(task) for task in tasks]))

    def evaluate(self, tasks):
        return [self._back(r) for r in self.inner.evaluate([self._there(task) for task in tasks])]

    def _there(self, task):
        known = self.held.get(task.client)
        held = known is not None and known.round == task.round - 1
        self.tasks.append(encode_task(task))
        self.parts.append(encode_task(task, leaning_on=state_digest(known) if held else ""))
        received = decode_task(self.parts[-1], lambda digest: known)
        self.held[task.client] = received
        return received

    def _back(self, result):
        self.results.append(encode_result(result))
        return decode_result(self.results[-1])


def task_fields(blob: bytes) -> Iterator[tuple[str, Any]]:
    """Every field of a task by its path, with its value."""
    factors, header = unpack(blob)
    assert set(_metadata(blob[32:])) == {"header"}
    yield from leaves("task", header)
    yield from (("task.tensor", (key, tensor)) for key, tensor in factors.items())


def result_fields(blob: bytes) -> Iterator[tuple[str, Any]]:
    """Every field of a result by its path, the sealed contribution's as well."""
    end = 36 + int.from_bytes(blob[32:36], "big")
    yield from leaves("result", json.loads(blob[36:end]))
    sealed = blob[end:]
    if sealed:
        tensors, header = unpack(sealed)
        assert set(_metadata(sealed[32:])) == {"header"}
        yield from leaves("update", header)
        yield from (("update.tensor", (key, tensor)) for key, tensor in tensors.items())


def leaves(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The values at the ends of a JSON value; items of a list share a path."""
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from leaves(f"{path}.{name}", inner)
    elif isinstance(value, Sequence) and not isinstance(value, str) and value:
        for inner in value:
            yield from leaves(path, inner)
    else:
        yield path, value


def file_fields(folder: Path, times: Sequence[str]) -> dict[str, Any]:
    """What a run's public JSON files say, but for what tells a time."""
    lines = {
        name: read_lines(folder / name, newest=3) for name in ("metrics.jsonl", "ledger.jsonl")
    }
    whole = {name: read_json(folder / name) for name in ("run.json", "privacy.json")}
    return {name: _without(value, times) for name, value in (lines | whole).items()}


def public_text(folder: Path) -> bytes:
    """All bytes of a run's folder that do not belong to one silo."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return b"".join(p.read_bytes() for p in files if "sites" not in p.relative_to(folder).parts)


def _metadata(body: bytes) -> dict[str, str]:
    size = int.from_bytes(body[:8], "little")
    return json.loads(body[8 : 8 + size])["__metadata__"]


def _without(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, dict):
        return {k: _without(v, names) for k, v in value.items() if k not in names}
    return [_without(v, names) for v in value] if isinstance(value, list) else value
