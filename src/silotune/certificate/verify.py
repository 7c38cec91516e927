"""Verify: a certificate is computed again, and held against all that lies beside it.

It proves that figures follow from charges and that nobody's books differ. It cannot prove that
noise was really added: that is what an audit, and the code, are for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import silotune
from silotune.federation.opening import saved_config
from silotune.runs.facts import PrivacyStatement, RunFacts, read_certificate, read_facts
from silotune.runs.folder import RunFolder

from .consistency import Discrepancy, Recomputed, readable, recompute, within
from .cross_check import with_configuration, with_digest, with_ledgers, with_record


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What came of it.

    Attributes:
        certificate: the file.
        said: what it says; None if it claims nothing at all.
        findings: what does not add up; empty if everything does.
        silos: the figures of every account, computed again.
        compared: what it was held against, beside itself.
    """

    certificate: str
    said: PrivacyStatement | None
    findings: tuple[Discrepancy, ...]
    silos: Mapping[str, Recomputed]
    compared: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Whether everything adds up. It may still be that nothing is claimed."""
        return not self.findings

    @property
    def private(self) -> bool:
        """Whether it claims something, and rightly."""
        return self.ok and self.said is not None and self.said.private


def verify(path: Path) -> Verification:
    """Check the certificate of a run, or one by itself.

    Args:
        path: a run's folder, whose configuration, record and ledgers are then compared; or a
            file, which is checked alone.

    Raises:
        RecordError: if there is no certificate, or it cannot be read at all.
    """
    folder = RunFolder(path) if path.is_dir() else None
    file = folder.privacy if folder else path
    said = read_certificate(file)
    unreadable = list(readable(said)) if said else []
    sound = said if said and not unreadable else None
    held = list(_beside(folder, said)) if folder and not unreadable else []
    own = [*unreadable, *(within(sound) if sound else ())]
    return Verification(
        certificate=str(file),
        said=said,
        findings=tuple(dict.fromkeys([*own, *(f for _, found in held for f in found)])),
        silos=recompute(sound) if sound else {},
        compared=tuple(name for name, _ in held),
    )


def _beside(
    folder: RunFolder, said: PrivacyStatement | None
) -> Iterator[tuple[str, list[Discrepancy]]]:
    """Every other file of the run that is there, and what does not agree with it."""
    facts = read_facts(folder) if folder.run.is_file() else None
    if facts and said:
        yield folder.run.name, list(with_record(said, facts))
    if folder.config.is_file():
        yield folder.config.name, list(_configuration(folder, said, facts))
    if said:
        yield from with_ledgers(said, folder)


def _configuration(
    folder: RunFolder, said: PrivacyStatement | None, facts: RunFacts | None
) -> Iterator[Discrepancy]:
    try:
        config = saved_config(folder)
    except ValueError as error:
        yield Discrepancy(folder.config.name, "; ".join(str(error).splitlines()))
        return
    if facts:
        yield from with_digest(facts, config, silotune.__version__)
    if said:
        yield from with_configuration(said, config)
    elif config.privacy.unit != "none":
        yield Discrepancy("unit", f"says none, {folder.config.name} says {config.privacy.unit}")
