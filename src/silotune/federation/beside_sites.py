"""What a run with sites leaves beside itself: the offer that is out, and who has accepted it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from silotune.certificate.transports import TRANSPORTS, kind_of
from silotune.core.files import build, read_json, whole_lines
from silotune.privacy.ledger.chain import read_line
from silotune.runs.folder import RunFolder
from silotune.runtimes import Courier

from .acceptance import Acceptance
from .offer import Offer

OFFERED = "offer.json"
"""In a run's folder: the offer that is out, so that who stops waiting can go on with it."""


def offer_out(folder: RunFolder) -> tuple[str, str] | None:
    """Run and beginning of an offer that is out and has not begun; None if there is none."""
    file = folder.path / OFFERED
    if folder.state.is_file() or not file.is_file():
        return None
    match read_json(file):
        case {"run": str(run), "began": str(began)}:
            return run, began
    return None


def transports(folder: RunFolder, courier: Courier) -> list[str]:
    """Kinds of the couriers that the run had before, and of this one."""
    before = []
    if folder.sites_told.is_file():
        before = [kind for kind in read_json(folder.sites_told)["transports"] if kind in TRANSPORTS]
    return sorted({*before, kind_of(courier)})


def offered_with(folder: RunFolder, unit: str, here: Mapping[str, str]) -> Mapping[str, str]:
    """The versions that an offer names: of a run that has begun those that its sites accepted.

    What leaves a site is decided there, by its own software, so that a coordinator may be another
    one meanwhile; ``run.json`` says from which round on. Where the coordinator adds the noise, what
    was accepted is what must add it.

    Args:
        folder: of the run.
        unit: of privacy.
        here: of this machine.

    Raises:
        ValueError: naming the versions, if they must be the same and are not.
    """
    if not folder.state.is_file() or not (folder.path / OFFERED).is_file():
        return here
    told = read_json(folder.path / OFFERED).get("versions")
    if not isinstance(told, dict):
        return here
    changed = [f"{name} {version}" for name, version in told.items() if here.get(name) != version]
    if changed and unit == "client":
        raise ValueError(
            f"resume: sites accepted noise of this coordinator with {', '.join(sorted(changed))}, "
            "and other versions are here; install those, or begin a new run in another folder"
        )
    return told


def recorded(folder: RunFolder, offer: Offer) -> dict[str, Acceptance]:
    """Who takes part in a run that has begun; empty if none has.

    Raises:
        ValueError: if it was by another offer.
    """
    if not folder.sites_told.is_file() or not folder.state.is_file():
        return {}
    told = read_json(folder.sites_told)
    if told.get("offer") != offer.digest:
        raise ValueError(
            "resume: this version of silotune writes another offer than the one that the sites "
            "accepted; finish the run with the version that began it (run.json names it), or begin "
            "a new run in another folder"
        )
    where = str(folder.sites_told)
    return {name: build(Acceptance, site, where) for name, site in told["sites"].items()}


def copies_of(ledger: Path) -> dict[str, bytes]:
    """By account, the lines of a run's collected ledger as they stand in it."""
    found: dict[str, bytes] = {}
    data = whole_lines(ledger.read_bytes()) if ledger.is_file() else b""
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        name = read_line(line, ledger, number).entry.silo
        found[name] = found.get(name, b"") + line
    return found
