"""The small run of ``small.py``, in objects."""

from pathlib import Path
from typing import Any

import silotune as st
from federation.small import SILOS, notes

LABELS = ("cat", "dog")
SEEDED = st.ExampleDP(noise_multiplier=2.0, target_delta=1e-3, insecure_seeded_noise=True)


def tables(n: int = 24) -> dict[str, list[dict[str, str]]]:
    """Each client's records."""
    records = notes(n)
    return {
        name: [
            {"text": r["text"], "label": r["label"], "silo": name}
            for r in records
            if r["silo"] == name
        ]
        for name in SILOS
    }


def classifier(**changes: Any) -> st.SequenceClassification:
    """What ``small.yaml`` asks of the model."""
    given = {"text": "text", "label": "label", "labels": LABELS, "max_length": 32}
    return st.SequenceClassification(**{**given, **changes})


def federation(model: Any, **changes: Any) -> st.Federation:
    """As ``small.yaml`` describes it."""
    given = {
        "model": str(model) if isinstance(model, Path) else model,
        "clients": tables(),
        "objective": classifier(),
        "method": st.methods.FFALoRA(r=2),
        "optimizer": st.optim.SGD(lr=0.5),
        "privacy": st.NoDP(),
        "rounds": 3,
        "local_steps": 2,
        "batch_size": 8,
        "valid_fraction": 0.11,
        "micro_batch_size": 8,
    }
    return st.Federation(**{**given, **changes})
