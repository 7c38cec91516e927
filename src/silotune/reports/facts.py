"""What a report says about a run besides its rounds, as typed values.

``RunFacts`` is ``run.json``, ``PrivacyStatement`` is ``privacy.json``, and ``Summary`` is what only
the configuration knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from silotune.core.files import build, read_json

from .record import RunFolder, unbounded

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
        seed: of everything but noise and sampling coins.
        metric: the metric to look at first, such as ``accuracy`` or ``perplexity``.
        versions: of python, torch and so on.
        config_digest: SHA-256 of the resolved configuration.
        model_digest: SHA-256 of the base weights.
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
    """What one silo has spent.

    Attributes:
        num_examples: the declared, public number of records.
        sampling_rate: chance of a record to be in a batch.
        noise_multiplier: std of the noise in units of the clip norm.
        steps: noised steps so far.
        rounds: rounds in which the silo took part.
        epsilon: for the whole run; infinite without noise.
        delta: for the whole run.
    """

    num_examples: int
    sampling_rate: float
    noise_multiplier: float
    steps: int
    rounds: int
    epsilon: float
    delta: float


@dataclass(frozen=True, kw_only=True)
class PrivacyStatement:
    """``privacy.json``: the guarantee and everything it depends on.

    Attributes:
        unit: what is hidden; ``example`` is one record at one silo.
        relation: when two data sets are neighbours; ``add-remove``.
        sampling: how batches are drawn.
        noise: which noise is added, and from which source.
        accountant: library, version and grid.
        trust_model: from whom it protects.
        max_grad_norm: the clip norm C, over all trained coordinates together.
        target_epsilon: the budget of each silo; None where the noise was given.
        target_delta: the delta of the budget.
        silos: what each silo has spent.
        overall: ``epsilon`` of the federation and ``holds_if``, its condition.
        released: what leaves a silo under this guarantee.
        not_covered: what the guarantee says nothing about.
    """

    unit: str
    relation: str
    sampling: str
    noise: str
    accountant: str
    trust_model: str
    max_grad_norm: float
    target_delta: float
    target_epsilon: float | None = None
    silos: Mapping[str, SiloPrivacy]
    overall: Mapping[str, Any]
    released: Sequence[str] = ()
    not_covered: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """The fields as JSON values."""
        return asdict(self)

    def largest_epsilon(self) -> float:
        """The epsilon of the silo that has spent most."""
        return max((silo.epsilon for silo in self.silos.values()), default=0.0)


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What the configuration says about a run, in the words of its keys.

    Attributes:
        title: a short name for people.
        base_model: hub name, or a folder.
        task: ``sequence-classification``, ``causal-lm`` or ``image-classification``.
        method: ``ffa-lora``, ``fedit`` or ``head-only``.
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
        split: records and labels of every silo; shown in a simulation only.
    """

    title: str
    base_model: str
    task: str
    method: str
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
    if not folder.privacy.exists():
        return None
    data = read_json(folder.privacy)
    if data.get("unit") == "none":
        return None
    silos = {
        name: build(SiloPrivacy, {**silo, **unbounded({"epsilon": silo.get("epsilon")})})
        for name, silo in data.get("silos", {}).items()
    }
    return build(PrivacyStatement, {**data, "silos": silos, "overall": unbounded(data["overall"])})
