"""``privacy.json``, the certificate, as typed values."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from silotune.core.files import (
    DamagedError,
    build,
    json_text,
    object_text,
    read_json,
    value_text,
)
from silotune.core.plain import plain

from .facts import facts_in
from .folder import RunFolder, unbounded

FORMAT = 3
"""Of ``privacy.json``; those before were bound to nothing but themselves."""


@dataclass(frozen=True, kw_only=True)
class SiloPrivacy:
    """One account: what one silo has spent, or every client under client-level privacy.

    Attributes:
        num_examples: the declared, public number of records; of clients where the unit is one.
        sampling_rate: chance of a record (or client) to take part in a step; 1 where none is
            claimed.
        noise_multiplier: sigma, as the mechanism has it.
        steps: noised steps so far.
        rounds: rounds in which the silo took part.
        epsilon: for the whole run; infinite without noise, and where the noise is no secret.
        epsilon_rdp: the same by Renyi divergences: never below, infinite where they cannot say.
        epsilon_if_secret: what epsilon would be if the noise were secret; None where it is.
        delta: for the whole run.
        charges: all that the ledger holds, equal ones added up, in the form of ``charge_lines``.
        presumed: the same of orders to a site of whose charges it has told nothing since, as if
            it had charged for each once: what they cost is part of epsilon, an upper bound.
        last_heard: the last round of which a site has told what it charged; None if of none, and
            where nobody is heard from afar.
        lines: of the ledger.
        head: SHA-256 of the last of them, which binds all.
        lifetime: ``runs`` on records from the same declared place, this one among them, their
            ``epsilon`` together at the same delta (None: infinite, ``because``), and the charges
            of the ``earlier`` ones. None while the run goes on, and where no book is kept.
    """

    num_examples: int
    sampling_rate: float
    noise_multiplier: float
    steps: int
    rounds: int
    epsilon: float
    epsilon_rdp: float = math.inf
    epsilon_if_secret: float | None = None
    delta: float
    charges: Sequence[Mapping[str, Any]] = ()
    presumed: Sequence[Mapping[str, Any]] = ()
    last_heard: int | None = None
    lines: int = 0
    head: str = ""
    lifetime: Mapping[str, Any] | None = None

    @cached_property
    def text(self) -> str:
        """The fields as JSON; written once, however many certificates say the same."""
        return value_text({f.name: getattr(self, f.name) for f in fields(self)})


@dataclass(frozen=True, kw_only=True)
class PrivacyStatement:
    """``privacy.json``, the certificate: the guarantee and everything it depends on.

    Attributes:
        format: of the certificate.
        run: the identity of the run, as in its ledgers.
        private: whether anything is claimed.
        not_private_because: why nothing is; empty if something is.
        unit: what is hidden; ``example`` is one record at one silo.
        hidden: the same, for people.
        relation: when two data sets are neighbours; ``add-remove``, say.
        neighbours: the same, for people.
        mechanism: kinds of ``sampling`` and ``noise``, as the configuration names them.
        sampling: how batches are drawn, for people.
        noise: which noise is added, and from which source, for people.
        accountant: of epsilon: its name, library, version and grid.
        grid: of the privacy loss.
        cross_check: of epsilon_rdp.
        adversary: from whom it protects.
        trust_model: who must be trusted for that.
        transport: how messages were carried, and whom that shows what, a sentence a way.
        federation: where clients are sites: the ``coordinator``; the kinds of ``transports``;
            SHA-256 of the ``offer`` and of its ``terms``; of each of ``sites`` that accepted it
            its ``num_examples``, SHA-256 of its ``policy``, ``versions``, and when it
            ``accepted``. Empty in a simulation.
        max_grad_norm: the clip norm C, over all trained coordinates together.
        target_epsilon: the budget of each silo; None where the noise was given.
        target_delta: the delta of the budget.
        silos: what each silo has spent.
        overall: ``epsilon`` of the federation, the ``rule`` by which it follows from the silos'
            (``maximum`` or ``composition``) and ``holds_if``, its condition.
        recognition: the most that any attack can do: ``at_most`` so many records that took part
            are recognised, if ``false_alarms`` of those that did not are suspected. Empty while
            the run goes on.
        coupling: how far records move each other by going through the model at once, as measured
            on made-up ones before the run; empty where nobody's single records are hidden.
            ``together`` go at once, at most. With more than one, the clipped sum of ``others``
            moved by ``moved`` (in units of C) when one of full length was computed beside them, and
            by ``moved_at_large`` at factors of L2 norm ``large_norm`` in place of ``small_norm``.
            With one nothing moves; ``moved_if_together`` is why.
        lifetime: whether the charges are in the silos' books for life: ``recorded``; ``off``,
            as somebody wanted it; or ``none``, as nobody keeps one of whole clients.
        versions: of the software that counted, and drew the noise of the last rounds; ``upgrades``
            of ``run.json`` tell of a run that began with another.
        released: what leaves a silo under this guarantee.
        not_covered: what the guarantee says nothing about.
        not_claimed: what would make epsilon smaller, and is not counted on.
        grounds: what decides the sentences, besides the fields above.
        files: SHA-256 of the run's files as they are released, by path; empty while the run goes
            on.
        facts: SHA-256 of what decides in ``run.json``.
    """

    format: int = 1
    run: str = ""
    private: bool = True
    not_private_because: str = ""
    unit: str
    hidden: str = ""
    relation: str
    neighbours: str = ""
    mechanism: Mapping[str, str] = field(default_factory=dict)
    sampling: str
    noise: str
    accountant: str
    grid: float = math.nan
    cross_check: str = ""
    adversary: str = ""
    trust_model: str
    transport: Sequence[str] = ()
    federation: Mapping[str, Any] = field(default_factory=dict)
    max_grad_norm: float
    target_delta: float
    target_epsilon: float | None = None
    silos: Mapping[str, SiloPrivacy]
    overall: Mapping[str, Any]
    recognition: Mapping[str, float] = field(default_factory=dict)
    coupling: Mapping[str, float] = field(default_factory=dict)
    lifetime: str = "none"
    versions: Mapping[str, str] = field(default_factory=dict)
    released: Sequence[str] = ()
    not_covered: Sequence[str] = ()
    not_claimed: Sequence[str] = ()
    grounds: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    facts: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    def to_text(self) -> str:
        """What ``privacy.json`` holds: ``json_text`` of ``to_json``."""
        silos = object_text({name: silo.text for name, silo in self.silos.items()})
        return json_text(replace(self, silos={}).to_json(), {"silos": silos})

    def largest_epsilon(self) -> float:
        """The epsilon of the silo that has spent most; infinite if nothing is claimed."""
        return max((silo.epsilon for silo in self.silos.values()), default=0.0)

    def largest_if_secret(self) -> float:
        """The same, if the noise were secret."""
        return max(
            (
                silo.epsilon if silo.epsilon_if_secret is None else silo.epsilon_if_secret
                for silo in self.silos.values()
            ),
            default=0.0,
        )


def read_statement(folder: RunFolder) -> PrivacyStatement | None:
    """Read ``privacy.json``; None for a run without privacy, and before the first round.

    Raises:
        DamagedError: if it is damaged, or missing though the run has ended with one, with what
            helps.
        RecordError: if it cannot be read, or is of a newer version.
    """
    with folder.advising():
        if folder.privacy.exists():
            return read_certificate(folder.privacy, typed=True)
        if folder.run.is_file() and facts_in(folder.run).ledgers:
            raise DamagedError(f"{folder.privacy}: is missing")
        return None


def read_certificate(path: Path, *, typed: bool = False) -> PrivacyStatement | None:
    """Read a certificate, wherever it is; None for ``unit: none``.

    Args:
        path: of the file.
        typed: whether it must be one of ours; whoever verifies it names what is not.

    Raises:
        DamagedError: if it is missing or damaged.
        RecordError: if it cannot be read, or is of a newer version.
    """
    data = read_json(path)
    if data.get("unit") == "none":
        return None
    try:
        silos = {
            name: build(SiloPrivacy, _silo(silo), f"{path}: silos: {plain(name, 100)}", typed=typed)
            for name, silo in data["silos"].items()
        }
        overall = {**data["overall"], **unbounded({"epsilon": data["overall"].get("epsilon")})}
        return replace(
            build(
                PrivacyStatement, {**data, "silos": {}, "overall": overall}, str(path), typed=typed
            ),
            silos=silos,
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise DamagedError(f"{path}: damaged, this is not a privacy statement") from error


def _silo(data: Mapping[str, Any]) -> dict[str, Any]:
    epsilons = {name: data[name] for name in ("epsilon", "epsilon_rdp") if name in data}
    return {**data, **unbounded(epsilons)}
