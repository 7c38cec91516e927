"""Finished: the adapter of a run, read back from its PEFT folder and scored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from silotune.adapters import load_peft
from silotune.adapters.peft_io import WEIGHTS
from silotune.config import Config
from silotune.config.privacy_section import Privacy
from silotune.core import Factors
from silotune.reports.record import RunFolder

from .building import BuiltModel
from .opening import saved_config
from .scoring import measured, readable, score
from .workshop import open_workshop

Split = Literal["valid", "test"]


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of a run's adapter.

    Attributes:
        split: ``valid``: what rounds are scored on; ``test``: the records for the final figure.
        metrics: of all records together.
        silos: of each silo's own records; only in a simulation, on ``valid``.
    """

    split: Split
    metrics: Mapping[str, float]
    silos: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def evaluate(folder: RunFolder, split: Split | None) -> Evaluation:
    """Load the adapter into the run's model and score it.

    Args:
        folder: of a run that has an adapter.
        split: None for ``test`` if there is such a part, else ``valid``.

    Raises:
        ValueError: in words.
    """
    config = config_with_adapter(folder)
    without_noise = config.model_copy(update={"privacy": Privacy(unit="none")})
    workshop = open_workshop(without_noise)  # which need not find out how much there was
    factors, test = adapter(folder, workshop.model, config), workshop.data.test
    if split == "test" and test is None:
        raise ValueError("--split: the data has no test part; use valid")
    if split != "valid" and test is not None:
        return Evaluation(split="test", metrics=readable(measured(workshop, factors, test)))
    if config.evaluation == "site":
        raise ValueError(
            f"evaluation: site keeps every score at its silo, in {folder.path}/sites; only a test "
            "part beside the silos could be scored here"
        )
    scores = score(workshop, factors)
    return Evaluation(split="valid", metrics=scores.overall, silos=scores.silos)


def config_with_adapter(folder: RunFolder) -> Config:
    """The configuration of a run that has an adapter.

    Raises:
        RecordError: if there is no run.
        ValueError: if it has no adapter yet.
    """
    RunFolder.existing(folder.path)
    if not (folder.adapter / WEIGHTS).is_file():
        raise ValueError(
            f"{folder.path}: the run has no adapter yet; finish it: "
            f"silotune run {folder.config} --resume"
        )
    return saved_config(folder)


def adapter(folder: RunFolder, model: BuiltModel, config: Config) -> Factors:
    """The factors in the run's ``adapter/``.

    Raises:
        ValueError: if they do not fit the model.
    """
    shapes = {key: tuple(t.shape) for key, t in model.first.items()}
    return load_peft(folder.adapter, shapes, config.model.head_scale)
