"""Verify: a certificate is computed again, and held against all that lies beside it.

It proves that figures follow from charges, sentences from figures, and that nobody's books differ.
What it cannot prove is said with every result (``limits``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from silotune.core.files import DamagedError, read_json
from silotune.privacy.ledger.store import LEDGER
from silotune.runs.facts import RunFacts, read_facts
from silotune.runs.folder import RunFolder
from silotune.runs.privacy_statement import PrivacyStatement, read_certificate
from silotune.version import __version__

from .circumstances import Described
from .consistency import Discrepancy, Recomputed, recompute, within
from .cross_check import (
    strangers,
    with_description,
    with_digest,
    with_evidence,
    with_files,
    with_ledgers,
    with_record,
)
from .evidence import place_of
from .limits import limits
from .readable import readable, unaccounted, unaccounted_facts
from .signature import check_signatures
from .told_by_sites import with_sites


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What came of it.

    Attributes:
        certificate: the file.
        statement: what it says; None if it claims nothing at all.
        findings: what does not add up; empty if everything does.
        silos: the figures of every account, computed again.
        compared: what it was held against, beside itself.
        uncompared: what else it could have been held against: files that are not there, or cannot
            be read here.
        signed: accounts whose owner's signature holds.
        limits: what no verification of these files can show, a sentence each.
    """

    certificate: str
    statement: PrivacyStatement | None
    findings: tuple[Discrepancy, ...]
    silos: Mapping[str, Recomputed]
    compared: tuple[str, ...]
    uncompared: tuple[str, ...] = ()
    signed: tuple[str, ...] = ()
    limits: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything adds up. It may still be that nothing is claimed."""
        return not self.findings

    @property
    def private(self) -> bool:
        """Whether it claims something, and rightly."""
        return self.ok and self.statement is not None and self.statement.private


Describe = Callable[[RunFolder], Described]
"""Reads how a run was described from its folder; ``ValueError`` in words if it cannot."""

Describers = Mapping[str, Describe]
"""File of a run's folder -> how it is read. Each that is there is compared, by its name."""


@dataclass(frozen=True, kw_only=True)
class Demands:
    """Which signatures must be there.

    Attributes:
        keys: account -> its owner's public key (``signature.public_key``).
        everybody: whether every account must be signed, by whatever key.
    """

    keys: Mapping[str, str] = field(default_factory=dict)
    everybody: bool = False


def verify(
    path: Path, describers: Describers | None = None, demands: Demands | None = None
) -> Verification:
    """Check the certificate of a run, or one by itself.

    Args:
        path: a run's folder, whose configuration, record, ledgers, metrics, checkpoint and adapter
            are then compared; or a file, which is checked alone, with the signatures beside it.
        describers: how descriptions are read; those that nobody can read are not compared.
        demands: which signatures must be there; None checks those that are.

    Raises:
        RecordError: if there is no certificate, or it cannot be read at all.
    """
    folder = RunFolder(path) if path.is_dir() else None
    file, demands = folder.privacy if folder else path, demands or Demands()
    if folder and not file.is_file():
        _refuse_unfinished(folder)
    with folder.advising() if folder else nullcontext():
        statement = read_certificate(file)
    unreadable = list(readable(statement)) if statement else []
    sound = statement if statement and not unreadable else None
    held = list(_beside(folder, statement, describers or {})) if folder and not unreadable else []
    compared = tuple(name for name, _ in held)
    own = [*unaccounted(read_json(file)), *unreadable, *(within(sound) if sound else ())]
    signed, wrong = _signatures(file, sound, demands)
    found = [*own, *wrong, *(f for _, discrepancies in held for f in discrepancies)]
    return Verification(
        certificate=str(file),
        statement=statement,
        findings=tuple(dict.fromkeys(found)),
        silos=recompute(sound) if sound else {},
        compared=compared,
        uncompared=tuple(_uncompared(folder, sound, compared)) if folder and sound else (),
        signed=signed,
        limits=tuple(limits(sound, signed, demands.keys, alone=folder is None)) if sound else (),
    )


def _refuse_unfinished(folder: RunFolder) -> None:
    """A run that has not ended has lost nothing.

    Raises:
        DamagedError: saying where it stands.
    """
    status = read_facts(folder).status if folder.run.is_file() else "finished"
    if status != "finished":
        raise DamagedError(
            f"{folder.path}: no certificate is there yet; it comes when the run ends, and this one "
            f"is {status}; go on with --resume"
        )


def _signatures(
    file: Path, statement: PrivacyStatement | None, demands: Demands
) -> tuple[tuple[str, ...], list[Discrepancy]]:
    if statement is not None:
        return check_signatures(file, statement, demands.keys, required=demands.everybody)
    if demands.keys or demands.everybody:
        return (), [Discrepancy("signatures", "are asked for, and there is nothing to sign")]
    return (), []


def _beside(
    folder: RunFolder, statement: PrivacyStatement | None, describers: Describers
) -> Iterator[tuple[str, list[Discrepancy]]]:
    """Every other file of the run that is there, and what does not agree with it."""
    facts = read_facts(folder) if folder.run.is_file() else None
    if facts:
        agreed = with_record(statement, facts) if statement else ()
        yield folder.run.name, [*unaccounted_facts(read_json(folder.run)), *agreed]
    elif statement:
        missing = Discrepancy(folder.run.name, "is missing: it says which run this is")
        yield folder.run.name, [missing]
    for name, describe in describers.items():
        if (folder.path / name).is_file():
            yield name, list(_description(name, folder, statement, facts, describe))
    if facts and facts.config_digest and not folder.description.is_file():
        text = f"is missing: {folder.run.name} has the digest of it"
        yield folder.description.name, [Discrepancy(folder.description.name, text)]
    if statement:
        yield from with_sites(statement, folder)
        yield from with_ledgers(statement, folder)
        yield from with_evidence(statement, folder, facts)
        yield folder.adapter.name, list(with_files(statement, folder))
    elif unclaimed := list(strangers(folder, None)):
        yield folder.ledger.name, unclaimed


def _uncompared(
    folder: RunFolder, statement: PrivacyStatement, compared: Collection[str]
) -> Iterator[str]:
    """Descriptions that nobody here can read or that are not there, and ledgers kept at home."""
    descriptions = (folder.config, folder.description)
    yield from (f.name for f in descriptions if f.is_file() and f.name not in compared)
    if not any(f.is_file() for f in descriptions):
        yield folder.description.name
    for name, silo in statement.silos.items():
        ledger = place_of(folder, statement.unit, name) / LEDGER
        where = ledger.relative_to(folder.path).as_posix()
        if silo.lines and where not in compared:
            yield where


def _description(
    name: str,
    folder: RunFolder,
    statement: PrivacyStatement | None,
    facts: RunFacts | None,
    describe: Describe,
) -> Iterator[Discrepancy]:
    try:
        described = describe(folder)
    except ValueError as error:
        yield Discrepancy(name, "; ".join(str(error).splitlines()))
        return
    if facts:
        yield from with_digest(facts, described, __version__)
    if statement:
        yield from with_description(statement, described)
    elif described.terms.private:
        unit = described.terms.unit
        yield Discrepancy("unit", f"says none, {name} says {unit}")
