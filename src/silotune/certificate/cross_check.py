"""Whether a certificate says what the configuration, the record and the ledgers say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from silotune.core import RecordError
from silotune.engine import EVERY_CLIENT
from silotune.engine.checkpoint import CheckpointError
from silotune.engine.checkpoint import load as load_checkpoint
from silotune.privacy import AnyCharge, ClientDP, ExampleDP
from silotune.privacy.accounting.charges import close
from silotune.privacy.ledger.book import ChargeLine
from silotune.privacy.ledger.chain import Chain, read_chains
from silotune.privacy.ledger.entry import COUNT, METRIC, UPDATE
from silotune.privacy.ledger.store import LEDGER
from silotune.privacy.mechanisms_from_choice import client_mechanisms, server_mechanism
from silotune.privacy.planned_charges import releases
from silotune.runs.digests import digest_of_facts, digest_of_observed, digests_of
from silotune.runs.facts import RunFacts
from silotune.runs.folder import RoundRecord, RunFolder, rounds_in
from silotune.runs.privacy_statement import PrivacyStatement, SiloPrivacy
from silotune.terms import Terms

from .accounts import from_lines
from .circumstances import Described
from .consistency import Discrepancy
from .evidence import (
    Books,
    by_checkpoint,
    by_collected,
    by_epsilon,
    by_facts,
    by_parcels,
    by_rounds,
    place_of,
)
from .grounds import grounds
from .guarantee import NOT_PRIVATE
from .issue import mechanism
from .lifetime import AT_SITES, lacking, mark


def with_record(statement: PrivacyStatement, facts: RunFacts) -> Iterator[Discrepancy]:
    """Against ``run.json``."""
    where = "run.json"
    yield from same("run", statement.run, facts.run, where)
    sizes = {name: silo.get("num_examples") for name, silo in facts.silos.items()}
    if statement.unit == "client":
        sizes = {EVERY_CLIENT: len(sizes)}
    yield from same("silos", sorted(statement.silos), sorted(sizes), where)
    for name, silo in statement.silos.items():
        declared = sizes.get(name, silo.num_examples)
        yield from same(f"silo {name}: num_examples", silo.num_examples, declared, where)
    if statement.private and facts.privacy.startswith(NOT_PRIVATE):
        yield Discrepancy("private", f"says true; run.json says: {facts.privacy}")
    if statement.facts != digest_of_facts(facts):
        yield Discrepancy(where, "is not what the certificate is bound to: it was changed")
    if statement.files and facts.observed != digest_of_observed(statement):
        has = "has the digest of another" if facts.observed else "lacks the digest of"
        yield Discrepancy(where, f"{has} lifetime, coupling or versions: they were changed")
    yield from _ended(statement, facts)
    finished = bool(statement.files) or facts.status == "finished"
    if finished:
        heads = {
            name: {"lines": silo.lines, "head": silo.head} for name, silo in statement.silos.items()
        }
        yield from same("silos: heads of the ledgers", heads, facts.ledgers, where)
    for name in lacking(statement) if finished else ():
        yield Discrepancy(f"silo {name}: lifetime", "is missing, though the run has ended")


def _ended(statement: PrivacyStatement, facts: RunFacts) -> Iterator[Discrepancy]:
    """Whether certificate and record are both of a run that has ended, or both of one that goes on.

    What a run was stopped for decides nothing. When it was stopped with a result, there is a time.
    """
    status, over = str(facts.status), facts.finished is not None
    if statement.files and not over and status != "finished":
        yield Discrepancy(
            "status",
            f"run.json says {status}, but the certificate is bound to files of a run that ended; "
            "if it goes on again, let it end",
        )
    if status == "finished" and not over:
        yield Discrepancy("status", "run.json says finished, and not when")
    if over and status != "finished" and not status.startswith("stopped: "):
        yield Discrepancy("status", f"run.json says {status}, and that it ended {facts.finished}")
    if over and not statement.files:
        yield Discrepancy(
            "status", f"run.json says that it ended {facts.finished}, the certificate is of before"
        )


def with_description(statement: PrivacyStatement, described: Described) -> Iterator[Discrepancy]:
    """Against the run as it was described."""
    terms, privacy, source = described.terms, described.terms.privacy, described.source
    if not terms.private:
        yield Discrepancy("unit", f"says {statement.unit}, {source} hides nothing")
        return
    if privacy.insecure_seeded_noise and statement.mechanism.get("source") != "seed":
        yield Discrepancy(
            "private",
            f"{source} says privacy.insecure_seeded_noise: true, the certificate hides it",
        )
    yield from same("mechanism", dict(statement.mechanism), mechanism(terms), source)
    for field in ("unit", "relation", "target_epsilon", "target_delta"):
        told = getattr(privacy, field, None)
        yield from same(field, getattr(statement, field), told, source)
    yield from same("lifetime", statement.lifetime, mark(terms, described.circumstances), source)
    composed = described.circumstances.composed and statement.private
    rule = "composition" if composed else "maximum"
    yield from same("overall: rule", statement.overall.get("rule"), rule, source)
    norm = getattr(privacy, "max_update_norm", getattr(privacy, "max_grad_norm", None))
    yield from same("max_grad_norm", statement.max_grad_norm, norm, source)
    if statement.federation:
        says = statement.federation["terms"]
        yield from same("federation: terms", says, described.offered, source)
    yield from _grounds(statement, described)
    for name in statement.silos:
        yield from _mechanism(statement, name, terms, source)


def with_files(statement: PrivacyStatement, folder: RunFolder) -> Iterator[Discrepancy]:
    """Against the files that a finished run is bound to, byte for byte."""
    here = digests_of(folder)
    adapter = f"{folder.adapter.name}/"
    if not statement.files:
        for path in here:
            if path.startswith(adapter):
                yield Discrepancy(path, "is not bound by this certificate, which is of before it")
        return
    for path, digest in statement.files.items():
        if here.get(path) != digest:
            why = "was changed or swapped" if path in here else "is missing"
            yield Discrepancy(path, f"{why}: it is not what the certificate is bound to")
    for path in sorted(here.keys() - statement.files.keys()):
        yield Discrepancy(path, "is not bound by the certificate: it was put there later")


def with_ledger(
    statement: PrivacyStatement, name: str, chain: Chain, file: str
) -> Iterator[Discrepancy]:
    """One account against its ledger, or the copy of it."""
    silo, book = statement.silos[name], chain.book(statement.run)
    if (silo.lines, silo.head) != (len(chain), chain.head):
        yield Discrepancy(
            f"silo {name}: head",
            f"is that of {silo.lines} lines, {file} has {len(chain)}"
            if silo.lines != len(chain)
            else f"is not that of {file}: a line of it was changed",
        )
    try:
        stated = totals(from_lines(silo.charges))
    except ValueError:
        return  # the certificate by itself was found wanting
    held = totals(book.account)
    for kind in {**stated, **held}:
        if stated.get(kind, (0, 0)) != held.get(kind, (0, 0)):
            yield Discrepancy(
                f"silo {name}: charges",
                f"{kind[0]}: {_told(stated.get(kind))} here, {_told(held.get(kind))} in {file}",
            )
    yield from same(f"silo {name}: rounds", silo.rounds, book.rounds, file)
    norms = {entry.max_grad_norm for entry in book.of(UPDATE)}
    if statement.unit == "example" and norms - {statement.max_grad_norm}:
        listed = ", ".join(f"{norm:g}" for norm in sorted(norms))
        yield Discrepancy("max_grad_norm", f"says {statement.max_grad_norm:g}, {file} has {listed}")


def with_ledgers(
    statement: PrivacyStatement, folder: RunFolder
) -> Iterator[tuple[str, list[Discrepancy]]]:
    """Every ledger that is there, by its name, and what does not agree with it."""
    copies, discrepancies = _read(folder.ledger, folder)
    if not folder.ledger.is_file():
        discrepancies.append(Discrepancy(folder.ledger.name, "is missing: it lists the charges"))
    discrepancies += [
        Discrepancy(f"silo {name}", "has charges in ledger.jsonl, and no account here")
        for name in sorted(copies.keys() - statement.silos.keys())
    ]
    for name in statement.silos if not discrepancies else ():
        copy = copies.get(name, Chain())
        discrepancies += with_ledger(statement, name, copy, folder.ledger.name)
    yield folder.ledger.name, [*discrepancies, *strangers(folder, statement)]
    places = {name: place_of(folder, statement.unit, name) / LEDGER for name in statement.silos}
    handed_over = [path for path in places.values() if path.is_file()]
    for name, path in places.items() if handed_over else ():
        file = str(path.relative_to(folder.path))
        if not path.is_file():
            if statement.silos[name].lines:
                yield file, [Discrepancy(file, "is missing, though others are here")]
            continue
        chains, discrepancies = _read(path, folder)
        own = chains.pop(name, Chain())
        if chains:
            discrepancies.append(Discrepancy(file, f"has charges of {', '.join(chains)}"))
        yield file, discrepancies or list(with_ledger(statement, name, own, file))


def strangers(folder: RunFolder, statement: PrivacyStatement | None) -> Iterator[Discrepancy]:
    """Ledgers in the folder that no account of the certificate has."""
    accounts = statement.silos if statement else ()
    unit = statement.unit if statement else "none"
    known = {place_of(folder, unit, name) / LEDGER for name in accounts}
    if statement:
        known.add(folder.ledger)
    found = [folder.ledger, folder.server / LEDGER, *folder.path.glob(f"sites/*/{LEDGER}")]
    for path in sorted(set(found) - known):
        if path.is_file() and path.stat().st_size:
            where = path.relative_to(folder.path).as_posix()
            yield Discrepancy(where, "is of no account here, and has charges")


def with_evidence(
    statement: PrivacyStatement, folder: RunFolder, facts: RunFacts | None
) -> Iterator[tuple[str, list[Discrepancy]]]:
    """Metrics, checkpoint and what was sent, and what they show that ledgers lack."""
    books = _books(statement, folder)
    if books is None:
        return  # ``with_ledgers`` has said why
    copied = list(by_collected(books, folder)) + (list(by_facts(books, facts)) if facts else [])
    copied += by_parcels(books, folder)
    rounds, damaged = _rounds(folder)
    copied += damaged
    if rounds:
        yield folder.metrics.name, [*by_rounds(books, rounds), *by_epsilon(books, rounds)]
    elif not damaged and any(silo.lines for silo in statement.silos.values()):
        copied.append(Discrepancy(folder.metrics.name, "is missing: it lists the rounds"))
    file = str(folder.state.relative_to(folder.path))
    if folder.state.is_file():
        yield file, [*copied, *_checkpoint(books, rounds, folder, file)]
    else:
        yield file, [*copied, Discrepancy(file, "is missing: it is the state that was reached")]


def _checkpoint(
    books: Books, rounds: list[RoundRecord], folder: RunFolder, file: str
) -> Iterator[Discrepancy]:
    try:
        state, run, *_ = load_checkpoint(folder.state)
    except CheckpointError as error:
        yield Discrepancy(file, str(error))
        return
    yield from same("run", books.run, run, file)
    yield from by_checkpoint(books, rounds, state)


def _rounds(folder: RunFolder) -> tuple[list[RoundRecord], list[Discrepancy]]:
    try:
        with folder.advising():
            return rounds_in(folder.metrics), []  # which of them were lost, evidence tells
    except RecordError as error:
        return [], [Discrepancy(folder.metrics.name, str(error))]


def _books(statement: PrivacyStatement, folder: RunFolder) -> Books | None:
    """Every account's own ledger, or the copy of it where that was not handed over."""
    copies, wrong = _read(folder.ledger, folder)
    chains: dict[str, Chain] = {}
    places: dict[str, str] = {}
    for name in statement.silos:
        path = place_of(folder, statement.unit, name) / LEDGER
        own, unreadable = _read(path, folder)
        wrong += unreadable
        chains[name] = (own if path.is_file() else copies).get(name, Chain())
        places[name] = str((path if path.is_file() else folder.ledger).relative_to(folder.path))
    if wrong:
        return None
    return Books(
        run=statement.run,
        unit=statement.unit,
        delta=statement.target_delta,
        relation=statement.relation,  # type: ignore[arg-type]  # ``readable`` has looked at it
        chains=chains,
        places=places,
        heard=statement.lifetime == AT_SITES,
    )


def _grounds(statement: PrivacyStatement, described: Described) -> Iterator[Discrepancy]:
    """Whether the sentences were made of what is described."""
    told = grounds(described.terms, described.circumstances).to_json()
    for field, value in told.items():
        yield from same(f"grounds: {field}", statement.grounds.get(field), value, described.source)


def _mechanism(
    statement: PrivacyStatement, name: str, terms: Terms, source: str
) -> Iterator[Discrepancy]:
    """Whether the configuration, at the stated sigma and size, charges what was charged."""
    silo, given = statement.silos[name], getattr(terms.privacy, "noise_multiplier", None)
    if given is not None:
        where = f"silo {name}: noise_multiplier"
        yield from same(where, silo.noise_multiplier, given, source)
    try:
        planned = _planned(terms, name, silo)
        lines = [*from_lines(silo.charges), *from_lines(silo.presumed)]
    except ValueError as error:
        yield Discrepancy(f"silo {name}: charges", str(error))
        return
    for line in lines:
        one = planned.get(line.release)
        whole = replace(one, steps=line.times * one.steps) if one else None
        if whole is None or not close(line.charge, whole):
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
        UPDATE: mechanism.charge(terms.steps_of(silo.num_examples)),
        COUNT: beside.count.charge() if beside.count else None,
        METRIC: beside.metric.charge() if beside.metric else None,
    }


def with_digest(facts: RunFacts, described: Described, version: str) -> Iterator[Discrepancy]:
    """Whether the description is the one that ``run.json`` was written with."""
    if facts.versions.get("silotune") == version and facts.config_digest != described.digest:
        text = "is not the configuration that run.json has the digest of"
        yield Discrepancy(described.source, text)


def totals(lines: Iterable[ChargeLine]) -> dict[tuple[str, AnyCharge], tuple[int, int]]:
    """Release and kind -> how often, and steps."""
    return {
        (line.release, replace(line.charge, steps=0)): (line.times, line.charge.steps)
        for line in lines
    }


def _told(total: tuple[int, int] | None) -> str:
    times, steps = total or (0, 0)
    return f"{times} charges of {steps} steps"


def _read(path: Path, folder: RunFolder) -> tuple[dict[str, Chain], list[Discrepancy]]:
    try:
        return read_chains(path), []
    except ValueError as error:
        return {}, [Discrepancy(str(path.relative_to(folder.path)), str(error))]


def same(field: str, says: object, other: object, where: str) -> Iterator[Discrepancy]:
    """Whether a field says what another place says."""
    if says != other:
        yield Discrepancy(field, f"says {says}, {where} says {other}")
