"""Trained before: adapters that are in a model from the start, and what their runs cost records.

A mixture has experts, and any run may begin from an adapter (``init_from``). One that is of a run
of ours has a certificate beside it, whose charges count for the silos of the same names; so do
those of the run that this one began from in turn. Of any other nobody knows what it learned from,
as nobody does of the base model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from silotune.certificate.accounts import from_lines
from silotune.core.files import read_json
from silotune.data.messages import listed
from silotune.privacy.lifetime.composition import Earlier
from silotune.runs.facts import read_facts
from silotune.runs.folder import RunFolder
from silotune.runs.privacy_statement import PrivacyStatement, read_certificate
from silotune.terms import Terms


class Before(NamedTuple):
    """A run of ours that left an adapter.

    Attributes:
        field: that names the adapter.
        folder: where the certificate lies, or ``run.json``.
        said: the certificate; None where the run hid nobody, or none is there.
    """

    field: str
    folder: RunFolder
    said: PrivacyStatement | None


def brought(terms: Terms, silo: str) -> dict[str, Earlier]:
    """What adapters that were trained before cost the silo of this name, by run.

    Raises:
        ValueError: in words, if charges that there must be cannot be read or found.
    """
    found = {}
    for field, folder, said in _runs(terms):
        if said is None or said.unit != "example" or silo not in said.silos:
            continue
        try:
            lines = from_lines(said.silos[silo].charges)
        except ValueError as error:
            raise ValueError(
                f"{field}: the charges in {folder.privacy} cannot be read: {error}"
            ) from error
        priced = tuple((line.release, line.charge) for line in lines)
        found[said.run] = Earlier(said.run, priced, said.mechanism.get("source") == "seed")
    return found


def refuse_unbounded(terms: Terms, silos: Collection[str]) -> None:
    """Refuse a private run that begins from what the same silos trained without privacy.

    Args:
        terms: of the run.
        silos: its names.

    Raises:
        ValueError: naming them; or if charges that there must be cannot be found.
    """
    if not terms.private:
        return
    for field, folder, said in _runs(terms):
        if field != "init_from" or said is not None or not folder.run.is_file():
            continue
        if same := sorted(set(read_facts(folder).silos) & set(silos)):
            raise ValueError(
                f"init_from: the run in {folder.path} trained without privacy on records of "
                f"{listed(same)}, so that nothing bounds what they have paid; start from a private "
                "run, or from one on records of others"
            )


def _runs(terms: Terms) -> Iterator[Before]:
    """The runs of ours that adapters are of, and those that these began from."""
    seen: set[Path] = set()
    method = terms.method
    for folder in getattr(method, "experts", None) or ():
        yield from _run_and_earlier("experts", folder, seen)
    if method.init_from is not None:
        yield from _run_and_earlier("init_from", method.init_from, seen)


def _run_and_earlier(field: str, adapter: str, seen: set[Path]) -> Iterator[Before]:
    folder = _run_of(Path(adapter).resolve())
    if folder is None or folder.path in seen:
        return
    seen.add(folder.path)
    said = read_certificate(folder.privacy) if folder.privacy.is_file() else None
    yield Before(field, folder, said)
    start = _start_of(folder)
    began = start is not None or (said is not None and bool(said.grounds.get("start")))
    if began and (start is None or not Path(start).exists()):
        raise ValueError(
            f"{field}: the run in {folder.path} began from an adapter itself ({start or 'unknown'})"
            ", which is not there, so that nobody knows what its records have paid; put it back, "
            "with the certificate of its run"
        )
    if start is not None:
        yield from _run_and_earlier(field, start, seen)


def _start_of(folder: RunFolder) -> str | None:
    """The adapter that a run began from, as its description says."""
    if not folder.description.is_file():
        return None
    match read_json(folder.description):
        case {"terms": {"method": {"init_from": str(start)}}}:
            return start
    return None


def _run_of(adapter: Path) -> RunFolder | None:
    """The run that an adapter is of, if it lies where runs leave it.

    Adapters are in ``<run>/adapter`` and in ``<run>/sites/<silo>/adapter``; one that was moved may
    have the certificate inside.
    """
    folders = [RunFolder(place) for place in (adapter, *list(adapter.parents)[:3:2])]
    return next((f for f in folders if f.privacy.is_file() or f.run.is_file()), None)
