"""Stand-in: the base of a rehearsal is the configuration's own, or one from a seed for MiniLM.

A rehearsal is of keys, policies, processes and messages. What the base knows decides nothing there,
so that the bundled configuration can be rehearsed on a machine that has no language model.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from silotune.models.hub import MINILM, files_digest
from silotune.models.sentence import write_sentence_files

from .tiny_models import tiny_bert

LAYERS, MOST_TOKENS = 6, 128
"""Of MiniLM, so that `method.layers_to_transform` means the same in what stands in for it, and
that it says how it pools, as MiniLM does."""


@dataclass(frozen=True)
class Base:
    """What is rehearsed on.

    Attributes:
        name: of a model whose files are on this machine.
        said: what a user has to know of it; empty for the configuration's own.
    """

    name: str
    said: str = ""


def base_for(name: str, folder: Path) -> Base:
    """The model of a configuration if its files are here, or one that stands in for MiniLM.

    Args:
        name: ``model.name_or_path``.
        folder: made for what stands in.

    Raises:
        ValueError: naming the key, if another model is not on this machine: nobody can say what it
            is like.
    """
    if files_digest(name):
        return Base(name)
    if name != MINILM:
        raise ValueError(
            "model.name_or_path: sites know a base by the SHA-256 of its files, and of "
            f"{name} none are on this machine; name a folder that has them, or load it once"
        )
    made = tiny_bert(folder, layers=LAYERS)
    features = json.loads((made / "config.json").read_text())["hidden_size"]
    write_sentence_files(made, "mean", features, MOST_TOKENS)
    return Base(
        str(made),
        f"base: {MINILM} is not on this machine, so a tiny made-up model of as many layers stands "
        "in for it; what is rehearsed is keys, policies and messages, and nothing is learned",
    )
