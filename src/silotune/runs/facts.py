"""What a report says about a run besides its rounds, as typed values.

``RunFacts`` is ``run.json``, ``PrivacyStatement`` is ``privacy.json``, the certificate, and
``Summary`` is what only the configuration knows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from silotune.core.files import RecordError, build, read_json

from .folder import RunFolder, unbounded

if TYPE_CHECKING:  # it imports datasets, which takes a second
    from silotune.data.summary import SiloSummary

FORMAT = 2
"""Of ``privacy.json``; the first one listed no charges and cannot be checked."""

SILO_ALONE = "silo-alone"
"""The baseline in which each silo trains without the others, with the same steps and privacy."""


@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """``run.json``: what ran, where and from what.

    Attributes:
        run: the identity of the run.
        started: time in ISO 8601.
        finished: time in ISO 8601; None while it runs.
        status: ``running``, ``finished``, ``stopped: <reason>`` or ``failed: <reason>``.
        privacy: the unit of privacy, or ``NOT PRIVATE`` and why.
        seed: of everything but noise and sampling coins.
        metric: the metric to look at first, such as ``accuracy`` or ``perplexity``.
        versions: of python, torch and so on.
        config_digest: SHA-256 of the resolved configuration.
        model_digest: SHA-256 of the base weights; with experts, of what is frozen together.
        parameters: counts of numbers: ``trained``, ``shared``, ``total``.
        command: the command line, one word an item.
        host: ``device``, ``threads``.
        silos: per silo its declared ``num_examples``.
        labels: the public label set in the order of ids.
        baselines: baseline -> silo -> metric -> value, scored on the records of the silo's metric,
            or of the global one where rounds have no silo metrics.
        final: metrics of the finished adapter on the test records; empty without any.
    """

    run: str
    started: str
    status: str
    seed: int
    metric: str
    privacy: str = ""
    finished: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    config_digest: str = ""
    model_digest: str = ""
    parameters: Mapping[str, int] = field(default_factory=dict)
    command: Sequence[str] = ()
    host: Mapping[str, str | int] = field(default_factory=dict)
    silos: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    labels: Sequence[str] = ()
    baselines: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    final: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


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


@dataclass(frozen=True, kw_only=True)
class PrivacyStatement:
    """``privacy.json``, the certificate: the guarantee and everything it depends on.

    Attributes:
        format: of the certificate.
        run: the identity of the run, as in its ledgers.
        private: whether anything is claimed.
        not_private_because: why nothing is; empty if something is.
        unit: what is hidden; ``example`` is one record at one silo.
        relation: when two data sets are neighbours; ``add-remove``, say.
        mechanism: kinds of ``sampling`` and ``noise``, as the configuration names them.
        sampling: how batches are drawn, for people.
        noise: which noise is added, and from which source, for people.
        accountant: of epsilon: its name, library, version and grid.
        grid: of the privacy loss.
        cross_check: of epsilon_rdp.
        adversary: from whom it protects.
        trust_model: who must be trusted for that.
        max_grad_norm: the clip norm C, over all trained coordinates together.
        target_epsilon: the budget of each silo; None where the noise was given.
        target_delta: the delta of the budget.
        silos: what each silo has spent.
        overall: ``epsilon`` of the federation, the ``rule`` by which it follows from the silos'
            (``maximum`` or ``composition``) and ``holds_if``, its condition.
        recognition: the most that any attack can do: ``at_most`` so many records that took part
            are recognised, if ``false_alarms`` of those that did not are suspected. Empty while
            the run goes on.
        versions: of the software that drew noise and counted.
        released: what leaves a silo under this guarantee.
        not_covered: what the guarantee says nothing about.
        not_claimed: what would make epsilon smaller, and is not counted on.
    """

    format: int = 1
    run: str = ""
    private: bool = True
    not_private_because: str = ""
    unit: str
    relation: str
    mechanism: Mapping[str, str] = field(default_factory=dict)
    sampling: str
    noise: str
    accountant: str
    grid: float = math.nan
    cross_check: str = ""
    adversary: str = ""
    trust_model: str
    max_grad_norm: float
    target_delta: float
    target_epsilon: float | None = None
    silos: Mapping[str, SiloPrivacy]
    overall: Mapping[str, Any]
    recognition: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    released: Sequence[str] = ()
    not_covered: Sequence[str] = ()
    not_claimed: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

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


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the configuration says about a run, in the words of its keys.

    Attributes:
        title: a short name for people.
        base_model: hub name, or a folder.
        task: ``sequence-classification``, ``causal-lm`` or ``image-classification``.
        method: as the catalogue names it, such as ``ffa-lora``.
        method_title: for people: ``FFA-LoRA``.
        method_words: what it does, in a sentence or two.
        rank: of the adapter; 0 where there is none.
        lora_alpha: the adapter's output is scaled by ``lora_alpha / rank``.
        target_modules: the adapted modules as the configuration names them.
        data: name or path of the data.
        num_rounds: planned.
        local_steps: of each silo in a round.
        batch_size: expected number of records in a step.
        optimizer: with its learning rate, for people: ``sgd, learning rate 0.5``.
        evaluation: ``public``, ``site`` or ``simulation``.
        pooling: ``model``, or ``mean`` for the L2-normalised masked mean.
        head: ``trained`` or ``frozen``.
        max_length: tokens of an input.
        personal: whether each silo ends with a model of its own, since some tensors never leave it.
        fits_peft: whether PEFT can hold the adapter; else it is in a format of our own.
        split: records and labels of every silo; shown in a simulation only.
    """

    title: str
    base_model: str
    task: str
    method: str
    method_title: str
    method_words: str
    rank: int
    lora_alpha: float
    target_modules: str
    data: str
    num_rounds: int
    local_steps: int
    batch_size: int
    optimizer: str
    evaluation: str
    pooling: str = "model"
    head: str = "trained"
    max_length: int = 128
    personal: bool = False
    fits_peft: bool = True
    split: Mapping[str, SiloSummary] = field(default_factory=dict)

    @property
    def is_simulation(self) -> bool:
        """Whether one machine saw all records."""
        return self.evaluation == "simulation"


def read_facts(folder: RunFolder) -> RunFacts:
    """Read ``run.json``.

    Raises:
        RecordError: if it is missing, damaged or of a newer version.
    """
    return build(RunFacts, read_json(folder.run))


def read_statement(folder: RunFolder) -> PrivacyStatement | None:
    """Read ``privacy.json``; None for a run without privacy (no file, or ``unit: none``).

    Raises:
        RecordError: if it is damaged or of a newer version.
    """
    return read_certificate(folder.privacy) if folder.privacy.exists() else None


def read_certificate(path: Path) -> PrivacyStatement | None:
    """Read a certificate, wherever it is; None for ``unit: none``.

    Raises:
        RecordError: if it is missing, damaged or of a newer version.
    """
    data = read_json(path)
    if data.get("unit") == "none":
        return None
    try:
        silos = {name: build(SiloPrivacy, _silo(silo)) for name, silo in data["silos"].items()}
        overall = {**data["overall"], **unbounded({"epsilon": data["overall"].get("epsilon")})}
        return build(PrivacyStatement, {**data, "silos": silos, "overall": overall})
    except (AttributeError, KeyError, TypeError) as error:
        raise RecordError(f"{path}: damaged, this is not a privacy statement") from error


def _silo(data: Mapping[str, Any]) -> dict[str, Any]:
    epsilons = {name: data[name] for name in ("epsilon", "epsilon_rdp") if name in data}
    return {**data, **unbounded(epsilons)}
