"""Digests: SHA-256 of what a run leaves, by which its certificate is bound to it.

Bound are the files from which a result follows: metrics, ledger, the last state and the shared
adapter. Pages and cards are made of these. Models of silos' own are left out: they never leave the
silo without noise, and neither may a digest, by which a guess could be confirmed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from silotune.core.files import finite

from .facts import RunFacts
from .folder import RunFolder
from .privacy_statement import PrivacyStatement

PASSING = ("status", "finished", "command", "host", "adapter_check")
"""Fields of ``run.json`` that decide nothing."""

CARD = "README.md"
"""Of an adapter: made from the certificate, which can therefore not be bound to it."""


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests_of(folder: RunFolder) -> dict[str, str]:
    """SHA-256 of every file that a finished run is bound to, by its path in the folder."""
    return {
        path.relative_to(folder.path).as_posix(): digest_of_file(path) for path in _bound(folder)
    }


def digest_of_facts(facts: RunFacts) -> str:
    """SHA-256 of what decides in ``run.json``."""
    fields = finite(facts.to_json())
    decisive = {name: value for name, value in fields.items() if name not in PASSING}
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def digest_of_observed(statement: PrivacyStatement) -> str:
    """SHA-256 of what nothing but the run could see, so that nothing else can show it.

    It is: how records moved each other (``coupling``), what every account says of its life, the
    versions by which noise was drawn and figures were counted, and who accepted what.
    """
    seen = {
        "coupling": statement.coupling,
        "lifetime": {name: silo.lifetime for name, silo in statement.silos.items()},
        "versions": statement.versions,
        "federation": statement.federation,
    }
    return hashlib.sha256(json.dumps(finite(seen), sort_keys=True).encode()).hexdigest()


def _bound(folder: RunFolder) -> Iterator[Path]:
    """Those that are there."""
    for path in (folder.metrics, folder.ledger, folder.state):
        if path.is_file():
            yield path
    if folder.adapter.is_dir():
        for path in sorted(folder.adapter.rglob("*")):
            if path.is_file() and path.name != CARD:
                yield path
