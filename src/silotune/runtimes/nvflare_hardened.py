"""Hardened kits of NVIDIA FLARE: what a kit was then stands in a file of its owner's own folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from silotune.core.files import RecordError, in_words, json_text, read_json
from silotune.privacy.ledger.private_files import make_private, write_private

from .nvflare_kits import check

HARDENED = "flare.json"
"""In the folder of who owns the kit."""


def note_hardened(folder: Path, kit: Path, digests: Mapping[str, str]) -> None:
    """Compare the kit once, and write down what it is.

    Args:
        folder: of its owner.
        kit: that was just hardened.
        digests: what hardening it gave.

    Raises:
        ValueError: if others can change the kit.
        RecordError: if that cannot be written.
    """
    check(kit, digests)
    file = folder / HARDENED
    with in_words(file):
        make_private(folder)
        write_private(file, json_text({"kit": str(kit.resolve()), "files": digests}).encode())


def check_hardened(folder: Path, kit: Path, cure: str) -> None:
    """Refuse a kit that is not as its owner has hardened it.

    Args:
        folder: of its owner.
        kit: that is to be started.
        cure: the command that hardens it.

    Raises:
        ValueError: naming the file, and what to do.
        RecordError: if it was never hardened here.
    """
    file = folder / HARDENED
    told = read_json(file) if file.is_file() else {}
    if told.get("kit") != str(kit.resolve()):
        raise RecordError(
            f"{kit}: was not hardened by who starts it, and FLARE's own policies let others run "
            f"code here; run: {cure} {kit}"
        )
    check(kit, told["files"])
