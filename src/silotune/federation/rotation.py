"""Rotation: a coordinator makes its key anew, and the authority of its server with it.

All that is to change is written into one file first. Whoever opens the federation after a crash
finds it there and goes on, so that no key is without the admissions that it has signed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from silotune.core.files import DamagedError, in_words, json_text, read_json, write_json
from silotune.keys import public_of
from silotune.keys.letters import moment
from silotune.privacy.ledger.private_files import make_private, write_private
from silotune.runtimes.nvflare_certificates import Root

from .admission import Admission, Rotation

JOURNAL = "rotating.json"
"""In the coordinator's folder, while a rotation is under way."""


def begin(
    folder: Path,
    name: str,
    old: Ed25519PrivateKey,
    admissions: Mapping[Admission, str],
    current: frozenset[str],
) -> None:
    """Write down a new key, and what it signs.

    Args:
        folder: the coordinator's.
        name: of the federation.
        old: the coordinator's key until now.
        admissions: of all that ever were members, and when each was revoked, if it was.
        current: names of those that are members; they are told.

    Raises:
        RecordError: if it cannot be written.
    """
    new = Ed25519PrivateKey.generate()
    served = any(one.server for one in admissions) or (folder / "nvflare").exists()
    root = Root.create(name) if served else None
    members, letters = {}, {}
    for before, revoked in admissions.items():
        after = _again(before, public_of(new), root)
        members[after.site] = {"revoked": revoked, "admission": after.signed(new)}
        if after.site in current:
            letters[f"{after.site}.{_count(folder, after.site) + 1}.rotation"] = Rotation(
                federation=after.federation,
                site=after.site,
                old_key=public_of(old),
                admission=json.dumps(after.signed(new)),
            ).signed(old)
    told = {
        "key": new.private_bytes_raw().hex(),
        "root": None if root is None else {"certificate": root.certificate, "key": root.key},
        "members": members,
        "letters": letters,
    }
    with in_words(folder / JOURNAL):
        write_private(folder / JOURNAL, json_text(told).encode())


def under_way(folder: Path) -> dict[str, Any] | None:
    """What was written down, if a rotation has not come to its end."""
    return read_json(folder / JOURNAL) if (folder / JOURNAL).exists() else None


def go_on(folder: Path, told: Mapping[str, Any]) -> Root | None:
    """Put key, admissions and letters in place; whatever is there already is written again.

    Args:
        folder: the coordinator's.
        told: what was written down.

    Returns:
        The new authority, if there is one.

    Raises:
        RecordError: if something cannot be written.
    """
    try:
        for site, member in told["members"].items():
            write_json(folder / "members" / f"{site}.json", member)
        for name, letter in told["letters"].items():
            file = folder / "rotations" / name
            with in_words(file):
                make_private(file.parent)
            write_json(file, letter)
        secret = bytes.fromhex(told["key"])
        root = None if told["root"] is None else Root(**told["root"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DamagedError(f"{folder / JOURNAL}: damaged; bring it back from a copy") from error
    key = folder / "keys" / "coordinator.key"
    with in_words(key):
        write_private(key, secret)
    return root


def newest(folder: Path, site: str) -> Path:
    """The letter that told a site last; it takes one after the other."""
    return folder / "rotations" / f"{site}.{_count(folder, site)}.rotation"


def _count(folder: Path, site: str) -> int:
    count = 0
    while (folder / "rotations" / f"{site}.{count + 1}.rotation").exists():
        count += 1
    return count


def end(folder: Path) -> None:
    """Nothing is left to be done."""
    (folder / JOURNAL).unlink()


def _again(before: Admission, key: str, root: Root | None) -> Admission:
    """The same membership, by another key and authority."""
    if root is None or not before.server:
        return replace(before, coordinator_key=key)
    return replace(
        before,
        coordinator_key=key,
        certificate=root.again(before.certificate, moment(before.expires)),
        root=root.certificate,
    )
