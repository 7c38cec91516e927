"""Written models: the adapters that a run ends with, and a card beside each."""

from __future__ import annotations

from pathlib import Path

from silotune.core.files import write_text
from silotune.reports.model_card import model_card, signpost
from silotune.reports.totals import outcome
from silotune.runs.facts import RunFacts, Summary
from silotune.runs.folder import RunFolder
from silotune.runs.privacy_statement import PrivacyStatement
from silotune.terms import Agreement

from .adapter_folder import write_made
from .trained_models import ModelState, TrainedModels, own_adapter, save_adapter


def save_adapters(
    agreement: Agreement, folder: RunFolder, learned: TrainedModels, began: str
) -> None:
    """Write ``adapter/``: PEFT's two files, or our own, and how the model was made.

    Silos' own models are written into their own folders.
    """
    for place, model in _places(folder, learned).items():
        save_adapter(agreement.model, model, place)
        write_made(place, agreement.terms, agreement.labels, agreement.model, began)


def write_cards(
    folder: RunFolder,
    learned: TrainedModels,
    description: Summary,
    facts: RunFacts,
    certificate: PrivacyStatement | None,
) -> None:
    """The model card of every adapter; where silos have their own, ``adapter/`` says where."""
    totals = outcome(folder.read_rounds(), facts.metric)
    card = model_card(description, facts, totals, certificate)
    for place in _places(folder, learned):
        write_text(place / "README.md", card)
    if learned.shared is None:
        folder.adapter.mkdir(parents=True, exist_ok=True)
        write_text(folder.adapter / "README.md", signpost(description))


def _places(folder: RunFolder, learned: TrainedModels) -> dict[Path, ModelState]:
    """Where each model's adapter goes."""
    places = {own_adapter(folder, silo): model for silo, model in learned.own.items()}
    if learned.shared is not None:
        places[folder.adapter] = learned.shared
    return places
