"""Whether a certificate says what the configuration, the record and the ledgers say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from silotune.engine import EVERY_CLIENT
from silotune.privacy import AnyCharge, ClientDP, ExampleDP, LedgerEntry
from silotune.privacy.ledger.entry import COUNT, METRIC, UPDATE, read_ledger
from silotune.privacy.mechanisms_from_choice import client_mechanisms, releases, server_mechanism
from silotune.runs.facts import RunFacts
from silotune.runs.folder import RunFolder
from silotune.runs.privacy_statement import PrivacyStatement, SiloPrivacy
from silotune.terms import Terms

from .accounts import ChargeLine, account_of, from_lines
from .circumstances import Described
from .consistency import Discrepancy
from .guarantee import NOT_PRIVATE
from .issue import mechanism
from .lifetime import lacking, mark


def with_record(statement: PrivacyStatement, facts: RunFacts) -> Iterator[Discrepancy]:
    """Against ``run.json``."""
    where = "run.json"
    yield from _same("run", statement.run, facts.run, where)
    sizes = {name: silo.get("num_examples") for name, silo in facts.silos.items()}
    if statement.unit == "client":
        sizes = {EVERY_CLIENT: len(sizes)}
    yield from _same("silos", sorted(statement.silos), sorted(sizes), where)
    for name, silo in statement.silos.items():
        declared = sizes.get(name, silo.num_examples)
        yield from _same(f"silo {name}: num_examples", silo.num_examples, declared, where)
    if statement.private and facts.privacy.startswith(NOT_PRIVATE):
        yield Discrepancy("private", f"says true; run.json says: {facts.privacy}")
    for name in lacking(statement) if facts.status == "finished" else ():
        yield Discrepancy(f"silo {name}: lifetime", f"is missing, though {where} says finished")


def with_description(statement: PrivacyStatement, described: Described) -> Iterator[Discrepancy]:
    """Against the run as it was described."""
    terms, privacy, source = described.terms, described.terms.privacy, described.source
    if privacy.insecure_seeded_noise and statement.mechanism.get("source") != "seed":
        yield Discrepancy(
            "private",
            f"{source} says privacy.insecure_seeded_noise: true, the certificate hides it",
        )
    yield from _same("mechanism", dict(statement.mechanism), mechanism(terms), source)
    for field in ("unit", "relation", "target_epsilon", "target_delta"):
        told = getattr(privacy, field, None)
        yield from _same(field, getattr(statement, field), told, source)
    yield from _same("lifetime", statement.lifetime, mark(terms, described.circumstances), source)
    composed = described.circumstances.composed and statement.private
    rule = "composition" if composed else "maximum"
    yield from _same("overall: rule", statement.overall.get("rule"), rule, source)
    norm = getattr(privacy, "max_update_norm", getattr(privacy, "max_grad_norm", None))
    yield from _same("max_grad_norm", statement.max_grad_norm, norm, source)
    for name in statement.silos:
        yield from _mechanism(statement, name, terms, source)


def with_ledger(
    statement: PrivacyStatement, name: str, entries: Iterable[LedgerEntry], file: str
) -> Iterator[Discrepancy]:
    """One account against what a ledger holds for it."""
    silo, own = statement.silos[name], [entry for entry in entries if entry.run == statement.run]
    try:
        stated = _totals(from_lines(silo.charges))
    except ValueError:
        return  # the certificate by itself was found wanting
    held = _totals(account_of(own))
    for kind in {**stated, **held}:
        if stated.get(kind, (0, 0)) != held.get(kind, (0, 0)):
            yield Discrepancy(
                f"silo {name}: charges",
                f"{kind[0]}: {_told(stated.get(kind))} here, {_told(held.get(kind))} in {file}",
            )
    rounds = len({entry.round for entry in own if entry.release == UPDATE})
    yield from _same(f"silo {name}: rounds", silo.rounds, rounds, file)
    norms = {entry.max_grad_norm for entry in own if entry.release == UPDATE}
    if statement.unit == "example" and norms - {statement.max_grad_norm}:
        listed = ", ".join(f"{norm:g}" for norm in sorted(norms))
        yield Discrepancy("max_grad_norm", f"says {statement.max_grad_norm:g}, {file} has {listed}")


def with_ledgers(
    statement: PrivacyStatement, folder: RunFolder
) -> Iterator[tuple[str, list[Discrepancy]]]:
    """Every ledger that is there, by its name, and what does not agree with it."""
    if folder.ledger.is_file():
        entries, discrepancies = _read(folder.ledger, folder)
        discrepancies += [
            Discrepancy(f"silo {name}", "has charges in ledger.jsonl, and no account here")
            for name in sorted({entry.silo for entry in entries} - statement.silos.keys())
        ]
        for name in statement.silos if not discrepancies else ():
            own = [entry for entry in entries if entry.silo == name]
            discrepancies += with_ledger(statement, name, own, folder.ledger.name)
        yield folder.ledger.name, discrepancies
    for name in statement.silos:
        path = ledger_of(folder, statement.unit, name)
        if path.is_file():
            entries, discrepancies = _read(path, folder)
            file = str(path.relative_to(folder.path))
            yield file, discrepancies or list(with_ledger(statement, name, entries, file))


def ledger_of(folder: RunFolder, unit: str, account: str) -> Path:
    """Where an account's charges are kept by its owner."""
    return (folder.server if unit == "client" else folder.site(account)) / "ledger.jsonl"


def _mechanism(
    statement: PrivacyStatement, name: str, terms: Terms, source: str
) -> Iterator[Discrepancy]:
    """Whether the configuration, at the stated sigma and size, charges what was charged."""
    silo, given = statement.silos[name], getattr(terms.privacy, "noise_multiplier", None)
    if given is not None:
        where = f"silo {name}: noise_multiplier"
        yield from _same(where, silo.noise_multiplier, given, source)
    try:
        planned = _planned(terms, name, silo)
        lines = from_lines(silo.charges)
    except ValueError as error:
        yield Discrepancy(f"silo {name}: charges", str(error))
        return
    for line in lines:
        one = planned.get(line.release)
        whole = replace(one, steps=line.times * one.steps) if one else None
        if line.charge != whole:
            yield Discrepancy(
                f"silo {name}: charges",
                f"{source} charges {whole or 'nothing'} for {line.release}, {line.times} times; "
                f"not {line.charge}",
            )


def _planned(terms: Terms, name: str, silo: SiloPrivacy) -> dict[str, AnyCharge | None]:
    """What the configuration charges for each release, with the sigma that is stated."""
    known = terms.privacy
    if isinstance(known, ExampleDP | ClientDP):
        known = replace(known, target_epsilon=None, noise_multiplier=silo.noise_multiplier)
    if isinstance(known, ClientDP):
        return {UPDATE: server_mechanism(known, silo.num_examples, terms.training).charge()}
    mechanism = client_mechanisms(known, {name: silo.num_examples}, terms.training)[name]
    beside = releases(known, name, 0, terms.seed)
    return {
        UPDATE: mechanism.charge(terms.local_steps),
        COUNT: beside.count.charge() if beside.count else None,
        METRIC: beside.metric.charge() if beside.metric else None,
    }


def with_digest(facts: RunFacts, described: Described, version: str) -> Iterator[Discrepancy]:
    """Whether the description is the one that ``run.json`` was written with."""
    if facts.versions.get("silotune") == version and facts.config_digest != described.digest:
        text = "is not the configuration that run.json has the digest of"
        yield Discrepancy(described.source, text)


def _totals(lines: Iterable[ChargeLine]) -> dict[tuple[str, AnyCharge], tuple[int, int]]:
    """Release and kind -> how often, and steps."""
    return {
        (line.release, replace(line.charge, steps=0)): (line.times, line.charge.steps)
        for line in lines
    }


def _told(total: tuple[int, int] | None) -> str:
    times, steps = total or (0, 0)
    return f"{times} charges of {steps} steps"


def _read(path: Path, folder: RunFolder) -> tuple[list[LedgerEntry], list[Discrepancy]]:
    try:
        return read_ledger(path), []
    except ValueError as error:
        return [], [Discrepancy(str(path.relative_to(folder.path)), str(error))]


def _same(field: str, says: object, other: object, where: str) -> Iterator[Discrepancy]:
    if says != other:
        yield Discrepancy(field, f"says {says}, {where} says {other}")
