"""What a report says about a run besides its rounds, as typed values.

``RunFacts`` is ``run.json``; ``Summary`` is what only the configuration knows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from silotune.core.files import build, read_json

from .folder import RunFolder
from .scored import Scored

if TYPE_CHECKING:  # it imports datasets, which takes a second
    from silotune.data.summary import SiloSummary

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
        optimizer: with the learning rate of round 0, for people: ``sgd, learning rate 0.5``.
        versions: of python, torch and so on, with which the run began.
        upgrades: where it went on with other ones: ``round``, the first that was made with them,
            and all ``versions``.
        config_digest: SHA-256 of the resolved configuration.
        model_digest: SHA-256 of the base weights; with experts, of what is frozen together.
        base_files: SHA-256 of the files that these were read from; empty if there are none.
        start_digest: SHA-256 of the tensors of the adapter that it began from; empty without one.
        parameters: counts of numbers: ``trained``, ``shared``, ``total``.
        command: the command line, one word an item.
        host: ``device``, ``threads``, and what else computing went by: ``products`` of frozen
            maps, where a frozen prefix is kept, ``prefix_cache``, and the ``micro_batch_size``
            that was found, if it was to be.
        chosen: why what was left to be chosen was chosen so, a sentence each.
        silos: per silo its declared ``num_examples``.
        labels: the public label set in the order of ids.
        baselines: baseline -> silo -> metric -> value, scored on the records of the silo's metric,
            or of the global one where rounds have no silo metrics.
        worse_than_before: whether training left the metric worse than it found it; None if that is
            not known.
        final: metrics of the finished adapter on the test records; empty without any.
        scored: what stands behind the last scores; None where silos keep them.
        averaged: the first and the last round over whose states the result is the mean; empty
            where it is the last state.
        ledgers: account -> ``lines`` of its ledger and ``head``, SHA-256 of the last, once the run
            has ended; empty without privacy.
        observed: SHA-256 of what the certificate has from nowhere else (``digest_of_observed``),
            once the run has ended; empty without privacy.
        adapter_check: what PEFT made of the adapter when it was last looked at, in words.
    """

    run: str
    started: str
    status: str
    seed: int
    metric: str
    optimizer: str = ""
    privacy: str = ""
    finished: str | None = None
    versions: Mapping[str, str] = field(default_factory=dict)
    upgrades: Sequence[Mapping[str, Any]] = ()
    config_digest: str = ""
    model_digest: str = ""
    base_files: str = ""
    start_digest: str = ""
    parameters: Mapping[str, int] = field(default_factory=dict)
    command: Sequence[str] = ()
    host: Mapping[str, str | int] = field(default_factory=dict)
    chosen: Sequence[str] = ()
    silos: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    labels: Sequence[str] = ()
    baselines: Mapping[str, Mapping[str, Mapping[str, float]]] = field(default_factory=dict)
    worse_than_before: bool | None = None
    final: Mapping[str, float] = field(default_factory=dict)
    scored: Scored | None = None
    averaged: Sequence[int] = ()
    ledgers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    observed: str = ""
    adapter_check: str = ""

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the configuration says about a run, in the words of its keys.

    Attributes:
        title: a short name for people.
        base_model: hub name, or a folder.
        task: its name, such as ``sequence-classification``.
        method: as the catalogue names it, such as ``ffa-lora``.
        method_title: for people: ``FFA-LoRA``.
        method_words: what it does, in a sentence or two.
        rank: of the adapter; 0 where there is none.
        lora_alpha: the adapter's output is scaled by ``lora_alpha / rank``.
        target_modules: the adapted modules as the configuration names them.
        data: name or path of the data.
        num_rounds: planned.
        local_steps: the most of any silo in a round.
        local_epochs: of each silo in a round, if these say its steps.
        batch_size: expected number of records in a step.
        optimizer: with its learning rate, for people: ``sgd, learning rate 0.5``.
        evaluation: ``public``, ``site`` or ``simulation``.
        pooling: ``model``, ``mean`` for the L2-normalised masked mean, or of what vectors are made.
        head: ``trained`` or ``frozen``.
        max_length: tokens of an input.
        parts: of a record, as the objective names them: ``("messages",)``.
        personal: whether each silo ends with a model of its own, since some tensors never leave it.
        fits_peft: whether PEFT can hold the adapter; else it is in a format of our own.
        quantization: ``8bit`` or ``4bit`` where the run itself has quantised its base.
        products: number type in which frozen maps multiplied.
        constants: public numbers that make answers of outputs, as the objective names them.
        source_prefix: what every text to be read begins with.
        loss: its public numbers and words that are not the usual ones, by field.
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
    parts: Sequence[str] = ()
    personal: bool = False
    fits_peft: bool = True
    quantization: str = "none"
    products: str = "float32"
    local_epochs: float | None = None
    constants: Mapping[str, Sequence[float]] = field(default_factory=dict)
    source_prefix: str = ""
    loss: Mapping[str, str] = field(default_factory=dict)
    split: Mapping[str, SiloSummary] = field(default_factory=dict)

    @property
    def is_simulation(self) -> bool:
        """Whether one machine saw all records."""
        return self.evaluation == "simulation"


def read_facts(folder: RunFolder) -> RunFacts:
    """Read ``run.json`` of a folder.

    Raises:
        DamagedError: if it is missing or damaged, with what helps.
        RecordError: if it cannot be read, or is of a newer version.
    """
    with folder.advising():
        return facts_in(folder.run)


def facts_in(path: Path) -> RunFacts:
    """Read a ``run.json``.

    Raises:
        DamagedError: if it is missing or damaged.
        RecordError: if it cannot be read, or is of a newer version.
    """
    data = read_json(path)
    if isinstance(data.get("scored"), Mapping):
        found = build(Scored, data["scored"], str(path))
        known = (found.metrics, found.errors)  # JSON has no word for one that is unknown
        metrics, errors = ({n: math.nan if v is None else v for n, v in m.items()} for m in known)
        data["scored"] = replace(found, metrics=metrics, errors=errors)
    return build(RunFacts, data, str(path))
