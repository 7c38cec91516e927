"""Sentence files: by what a checkpoint of sentence-transformers makes one vector of a text.

``modules.json`` lists what a text goes through, and ``1_Pooling/config.json`` which tokens count.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, try_to_load_from_cache

from silotune.core.files import write_text
from silotune.objectives.embeddings import Tokens

from .hub import Location

_PREFIX = "pooling_mode_"
_MODES: dict[str, Tokens] = {"mean_tokens": "mean", "cls_token": "cls", "lasttoken": "last"}
"""As files have them that say true or false of each."""

_WORDS: dict[str, Tokens] = {"mean": "mean", "cls": "cls", "lasttoken": "last"}
"""As those have them that name one (sentence-transformers 6)."""

_KNOWN = ("Transformer", "Pooling", "Normalize")
"""Modules that are trained, or change no cosine."""

_SET = "set pooling to mean, cls or last"


def checkpoint_pooling(location: Location) -> Tokens:
    """Which tokens count by a checkpoint's files.

    Raises:
        ValueError: if they do not say, or say what is not built.
    """
    modules = _read(location, "modules.json")
    if modules is None:
        raise ValueError(
            f"pooling: {location.source} has no modules.json that can be had here, so it does not "
            f"say how it makes one vector of a text; {_SET}"
        )
    names = {str(m.get("type", "")).rpartition(".")[2]: str(m.get("path", "")) for m in modules}
    if strange := [name for name in names if name not in _KNOWN]:
        raise ValueError(
            f"pooling: {location.source} goes through {', '.join(strange)} beside the model, which "
            f"is not adapted; {_SET}, which leaves it out"
        )
    config = _read(location, f"{names.get('Pooling', '1_Pooling')}/config.json") or {}
    on = [mode.removeprefix(_PREFIX) for mode, is_on in config.items() if is_on is True]
    modes = [str(config["pooling_mode"])] if "pooling_mode" in config else on
    told = {_MODES.get(mode) or _WORDS.get(mode) for mode in modes if mode != "include_prompt"}
    if len(told) != 1 or (tokens := told.pop()) is None:
        named = " and ".join(mode for mode in modes if mode != "include_prompt")
        raise ValueError(
            f"pooling: {location.source} pools by {named or 'nothing'}, which is not built; {_SET}"
        )
    return tokens


def write_sentence_files(folder: Path, tokens: Tokens, features: int, max_length: int) -> None:
    """Let sentence-transformers, and what serves its models, read a folder.

    Args:
        folder: of a model and its tokenizer, as transformers writes them.
        tokens: which count.
        features: of a vector.
        max_length: tokens of a text that are read.
    """
    kinds = {"": "Transformer", "1_Pooling": "Pooling", "2_Normalize": "Normalize"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    pooling = {_PREFIX + mode: own == tokens for mode, own in _MODES.items()}
    _write(folder / "modules.json", modules)
    _write(folder / "sentence_bert_config.json", {"max_seq_length": max_length})
    (folder / "1_Pooling").mkdir()
    _write(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": features, **pooling})


def _write(file: Path, content: object) -> None:
    write_text(file, json.dumps(content, indent=2) + "\n")


def _read(location: Location, name: str) -> Any | None:
    """A file of JSON; None if the checkpoint has none, or nobody can tell.

    Raises:
        ValueError: if it is damaged.
    """
    file = _found(location, name)
    if file is None or not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise ValueError(
            f"pooling: {name} of {location.source} is no JSON, so that it does not say how it "
            f"makes one vector of a text; {_SET}"
        ) from None


def _found(location: Location, name: str) -> Path | None:
    if location.is_folder:
        return Path(location.source) / name
    found = try_to_load_from_cache(location.source, name)
    if not isinstance(found, str):
        try:
            found = hf_hub_download(location.source, name)
        except Exception:  # none there, or no hub: the cure is the same
            return None
    return Path(found)
