"""Trained models: what a state comes to: one model for all silos, or one of each.

Where a method keeps tensors at the silos (FedSA-LoRA's B), a state is no model by itself: each
silo's is the state with its own tensors in their place, and what is said of the run is said of all
of these together. Their adapters lie in the silos' own folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from silotune.adapters import save_own, save_peft
from silotune.core import Factors, GlobalState
from silotune.engine.personalization import personal
from silotune.linalg import Matrix
from silotune.runs.folder import RunFolder
from silotune.terms import BuiltModel


@dataclass(frozen=True, kw_only=True)
class ModelState:
    """The numbers of one model.

    Attributes:
        factors: every adapter and head tensor.
        folded: what has been added to the frozen base, by site, unscaled.
    """

    factors: Factors
    folded: Mapping[str, Matrix] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class TrainedModels:
    """One model for all silos, or else one of each.

    Attributes:
        shared: None where silos have their own.
        own: by silo; empty where one serves all.
    """

    shared: ModelState | None = None
    own: Mapping[str, ModelState] = field(default_factory=dict)

    def of(self, silo: str) -> ModelState:
        """The one that a silo uses."""
        return self.own[silo] if self.shared is None else self.shared

    def models(self) -> Sequence[ModelState]:
        """All there are."""
        return list(self.own.values()) if self.shared is None else [self.shared]


def is_personal(model: BuiltModel) -> bool:
    """Whether each silo ends with a model of its own."""
    return bool(model.plan.personal(model.first))


def learned_from(
    state: GlobalState, model: BuiltModel, folder: RunFolder, run: str, silos: Sequence[str]
) -> TrainedModels:
    """What ``state`` comes to; the silos' own tensors are read where they keep them.

    Args:
        state: after a whole round, or before the first.
        model: of the run.
        folder: holds the silos' folders.
        run: its identity.
        silos: all of them. One that has not trained yet begins with the state's tensors.

    Raises:
        RecordError: if a silo's file is torn.
    """
    if not is_personal(model):
        return TrainedModels(shared=ModelState(factors=state.factors, folded=state.folded))

    def own(silo: str) -> ModelState:
        kept = personal(folder.site(silo), run, before=state.round)
        return ModelState(factors=state.factors.updated(kept), folded=state.folded)

    return TrainedModels(own={silo: own(silo) for silo in silos})


def own_adapter(folder: RunFolder, silo: str) -> Path:
    """Where the adapter of one silo's own model lies, in that silo's folder."""
    return folder.site(silo) / folder.adapter.name


def save_adapter(model: BuiltModel, numbers: ModelState, place: Path) -> None:
    """Write an adapter folder: PEFT's two files, or our own where PEFT has no words for it.

    Raises:
        RecordError: if the disk is full or the place cannot be written.
    """
    if model.axes.adapter and not model.axes.adapter.fits_peft:
        save_own(place, numbers.factors)
        return
    save_peft(place, numbers.factors, model.axes.adapter, model.sites, model.layout, numbers.folded)
