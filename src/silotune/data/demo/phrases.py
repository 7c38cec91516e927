"""The words of the synthetic triage notes: invented complaints, no real person behind any.

Every complaint is a noun phrase in two voices, (as a clinician writes it, as a patient says it).
They are in the JSON files beside this one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

Voices = tuple[str, str]


@dataclass(frozen=True)
class SharedSymptom:
    """A symptom that several departments see.

    Attributes:
        words: of the symptom.
        details: department -> what decides for it.
    """

    words: Voices
    details: Mapping[str, Voices]


@cache
def complaints() -> Mapping[str, tuple[Voices, ...]]:
    """Department -> complaints that belong to it."""
    return {
        department: tuple(_voices(pair) for pair in pairs)
        for department, pairs in _read("complaints.json").items()
    }


@cache
def shared_symptoms() -> tuple[SharedSymptom, ...]:
    """The symptoms that alone do not tell the department."""
    return tuple(
        SharedSymptom(
            _voices(entry["symptom"]),
            {department: _voices(pair) for department, pair in entry["details"].items()},
        )
        for entry in _read("shared_symptoms.json")
    )


def _voices(pair: list[str]) -> Voices:
    clinician, patient = pair
    return clinician, patient


def _read(name: str) -> Any:
    return json.loads(files(__package__).joinpath(name).read_text(encoding="utf-8"))
