"""Whether a certificate says what the configuration, the record and the ledgers say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from silotune.config import Config, digest
from silotune.engine import EVERY_CLIENT
from silotune.federation.mechanisms import central_mechanism, mechanisms, releases
from silotune.privacy import AnyCharge, LedgerEntry
from silotune.privacy.ledger.entry import COUNT, METRIC, UPDATE, read_ledger
from silotune.runs.facts import PrivacyStatement, RunFacts, SiloPrivacy
from silotune.runs.folder import RunFolder

from .accounts import ChargeLine, account_of, from_lines
from .consistency import Discrepancy
from .guarantee import NOT_PRIVATE
from .issue import mechanism


def with_record(said: PrivacyStatement, facts: RunFacts) -> Iterator[Discrepancy]:
    """Against ``run.json``."""
    where = "run.json"
    yield from _same("run", said.run, facts.run, where)
    sizes = {name: silo.get("num_examples") for name, silo in facts.silos.items()}
    if said.unit == "client":
        sizes = {EVERY_CLIENT: len(sizes)}
    yield from _same("silos", sorted(said.silos), sorted(sizes), where)
    for name, silo in said.silos.items():
        declared = sizes.get(name, silo.num_examples)
        yield from _same(f"silo {name}: num_examples", silo.num_examples, declared, where)
    if said.private and facts.privacy.startswith(NOT_PRIVATE):
        yield Discrepancy("private", f"says true; run.json says: {facts.privacy}")


def with_configuration(said: PrivacyStatement, config: Config) -> Iterator[Discrepancy]:
    """Against ``config.yaml``."""
    privacy = config.privacy
    if privacy.insecure_seeded_noise and said.mechanism.get("source") != "seed":
        yield Discrepancy(
            "private",
            "config.yaml says privacy.insecure_seeded_noise: true, the certificate hides it",
        )
    yield from _same("mechanism", dict(said.mechanism), mechanism(config), "config.yaml")
    for field in ("unit", "relation", "target_epsilon", "target_delta"):
        yield from _same(field, getattr(said, field), getattr(privacy, field), "config.yaml")
    rule = "maximum" if config.data.person is None or not said.private else "composition"
    yield from _same("overall: rule", said.overall.get("rule"), rule, "config.yaml")
    norm = privacy.max_update_norm if privacy.unit == "client" else privacy.max_grad_norm
    yield from _same("max_grad_norm", said.max_grad_norm, norm, "config.yaml")
    for name in said.silos:
        yield from _mechanism(said, name, config)


def with_ledger(
    said: PrivacyStatement, name: str, entries: Iterable[LedgerEntry], file: str
) -> Iterator[Discrepancy]:
    """One account against what a ledger holds for it."""
    silo, own = said.silos[name], [entry for entry in entries if entry.run == said.run]
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
    if said.unit == "example" and norms - {said.max_grad_norm}:
        listed = ", ".join(f"{norm:g}" for norm in sorted(norms))
        yield Discrepancy("max_grad_norm", f"says {said.max_grad_norm:g}, {file} has {listed}")


def with_ledgers(
    said: PrivacyStatement, folder: RunFolder
) -> Iterator[tuple[str, list[Discrepancy]]]:
    """Every ledger that is there, by its name, and what does not agree with it."""
    if folder.ledger.is_file():
        entries, found = _read(folder.ledger, folder)
        found += [
            Discrepancy(f"silo {name}", "has charges in ledger.jsonl, and no account here")
            for name in sorted({entry.silo for entry in entries} - said.silos.keys())
        ]
        for name in said.silos if not found else ():
            own = [entry for entry in entries if entry.silo == name]
            found += with_ledger(said, name, own, folder.ledger.name)
        yield folder.ledger.name, found
    for name in said.silos:
        path = ledger_of(folder, said.unit, name)
        if path.is_file():
            entries, found = _read(path, folder)
            file = str(path.relative_to(folder.path))
            yield file, found or list(with_ledger(said, name, entries, file))


def ledger_of(folder: RunFolder, unit: str, account: str) -> Path:
    """Where an account's charges are kept by its owner."""
    return (folder.server if unit == "client" else folder.site(account)) / "ledger.jsonl"


def _mechanism(said: PrivacyStatement, name: str, config: Config) -> Iterator[Discrepancy]:
    """Whether the configuration, at the stated sigma and size, charges what was charged."""
    silo, given = said.silos[name], config.privacy.noise_multiplier
    if given is not None:
        where = f"silo {name}: noise_multiplier"
        yield from _same(where, silo.noise_multiplier, given, "config.yaml")
    try:
        planned = _planned(config, name, silo)
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
                f"config.yaml charges {whole or 'nothing'} for {line.release}, {line.times} times; "
                f"not {line.charge}",
            )


def _planned(config: Config, name: str, silo: SiloPrivacy) -> dict[str, AnyCharge | None]:
    """What the configuration charges for each release, with the sigma that is stated."""
    noised = {"target_epsilon": None, "noise_multiplier": silo.noise_multiplier}
    known = config.model_copy(update={"privacy": config.privacy.model_copy(update=noised)})
    if config.privacy.unit == "client":
        return {UPDATE: central_mechanism(known, silo.num_examples).charge()}
    mechanism = mechanisms(known, {name: silo.num_examples})[name]
    beside = releases(known, name, 0)
    return {
        UPDATE: mechanism.charge(config.train.local_steps),
        COUNT: beside.count.charge() if beside.count else None,
        METRIC: beside.metric.charge() if beside.metric else None,
    }


def with_digest(facts: RunFacts, config: Config, version: str) -> Iterator[Discrepancy]:
    """Whether ``config.yaml`` is the one that ``run.json`` was written with."""
    if facts.versions.get("silotune") == version and facts.config_digest != digest(config):
        yield Discrepancy("config.yaml", "is not the configuration that run.json has the digest of")


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
