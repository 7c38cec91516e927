"""Results: the adapters of a run, read back from their folders and scored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from silotune.adapters import OWN_WEIGHTS, load_own, load_peft
from silotune.adapters.peft_io import WEIGHTS
from silotune.config import Config
from silotune.config.privacy_section import PrivacyConfig
from silotune.runs.facts import read_facts
from silotune.runs.folder import RunFolder

from .build import BuiltModel
from .federation import open_federation
from .opening import saved_config
from .scoring import measured, readable, score
from .trained_models import ModelState, TrainedModels, own_adapter

Split = Literal["valid", "test"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of a run's adapter, or of its silos' own ones together.

    Attributes:
        split: ``valid``: what rounds are scored on; ``test``: the records for the final figure.
        metrics: of all records together.
        silos: of each silo's own records; only in a simulation, on ``valid``.
    """

    split: Split
    metrics: Mapping[str, float]
    silos: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def evaluate(
    folder: RunFolder, split: Split | None, masked_experts: Sequence[str] = ()
) -> Evaluation:
    """Load what the run has learned into its model and score it.

    Args:
        folder: of a run that has an adapter, or one for each silo.
        split: None for ``test`` if there is such a part, else ``valid``.
        masked_experts: folders of experts that are left out of a mixture, beside those that the
            run itself left out.

    Raises:
        ValueError: in words.
    """
    own = own_adapters(folder)
    shared = None if own else shared_adapter(folder)
    config = _masked(saved_config(folder), masked_experts)
    without_noise = config.model_copy(update={"privacy": PrivacyConfig(unit="none")})
    workshop = open_federation(without_noise)  # which need not find out how much there was
    if config.method.given("experts") and workshop.model.digest != read_facts(folder).model_digest:
        raise ValueError("method.experts: these are not the experts that the run was trained with")
    learned = TrainedModels(
        shared=model_in(shared, workshop.model) if shared else None,
        own={silo: model_in(place, workshop.model) for silo, place in own.items()},
    )
    test = workshop.data.test
    if split == "test" and test is None:
        raise ValueError("--split: the data has no test part; use valid")
    if split != "valid" and test is not None:
        metrics = readable(measured(workshop, learned.models(), test))
        return Evaluation(split="test", metrics=metrics)
    if config.evaluation == "site":
        raise ValueError(
            f"evaluation: site keeps every score at its silo, in {folder.path}/sites; only a test "
            "part beside the silos could be scored here"
        )
    scores = score(workshop, learned)
    return Evaluation(split="valid", metrics=scores.overall, silos=scores.silos)


def _masked(config: Config, experts: Sequence[str]) -> Config:
    """The configuration without some of its experts.

    Raises:
        ValueError: if one of them is none of the run's, or none would be left.
    """
    if not experts:
        return config
    if strange := set(experts) - set(config.method.given("experts") or ()):
        raise ValueError(f"--mask-expert: {min(strange)} is not among method.experts of this run")
    masked = tuple(sorted({*experts, *(config.method.given("masked_experts") or ())}))
    method = config.method.model_copy(update={"masked_experts": masked})
    return config.model_copy(update={"method": method})


def adapter_of(folder: RunFolder, silo: str | None) -> Path:
    """Where the adapter is that somebody asks for.

    Args:
        folder: of a run.
        silo: whose own model it is; None for the one that all share.

    Raises:
        RecordError: if there is no run.
        ValueError: if it has no adapter yet, or none of that kind.
    """
    own = own_adapters(folder)
    if not own:
        place = shared_adapter(folder)
        if silo is not None:
            raise ValueError("--silo: one model serves all silos of this run; leave --silo out")
        return place
    if silo not in own:
        why = "every silo of this run has a model of its own"
        asked = why if silo is None else f"there is no silo {silo!r}"
        raise ValueError(f"--silo: {asked}; choose one of {', '.join(sorted(own))}")
    return own[silo]


def own_adapters(folder: RunFolder) -> dict[str, Path]:
    """The adapters of the silos' own models; empty where one model serves all.

    Raises:
        RecordError: if there is no run.
    """
    RunFolder.existing(folder.path)
    places = {silo: own_adapter(folder, silo) for silo in read_facts(folder).silos}
    return places if all(map(_holds_adapter, places.values())) else {}


def shared_adapter(folder: RunFolder) -> Path:
    """The adapter that all silos share.

    Raises:
        ValueError: if the run has none yet.
    """
    if not _holds_adapter(folder.adapter):
        raise ValueError(
            f"{folder.path}: the run has no adapter yet; finish it: "
            f"silotune run {folder.config} --resume"
        )
    return folder.adapter


def model_in(place: Path, model: BuiltModel) -> ModelState:
    """The numbers in an adapter folder.

    Args:
        place: ``adapter/``, of the run or of a silo.
        model: that it was made for.

    Raises:
        ValueError: if they do not fit the model.
    """
    shapes = {key: tuple(t.shape) for key, t in model.first.items()}
    if model.recipe.adapter and not model.recipe.adapter.fits_peft:
        return ModelState(factors=load_own(place, shapes))
    scale = model.layout.head_scale
    factors, folded = load_peft(place, shapes, model.recipe.adapter, scale)
    return ModelState(factors=factors, folded=folded)


def _holds_adapter(place: Path) -> bool:
    """In PEFT's format or in our own."""
    return (place / WEIGHTS).is_file() or (place / OWN_WEIGHTS).is_file()
