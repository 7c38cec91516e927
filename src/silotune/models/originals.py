"""Originals: what a merged model copies from its base, as no training has changed it.

A run pads on the right, switches dropouts off and keeps no cache, which is nobody else's wish.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from silotune.core.files import write_text

from .hub import local_folder
from .load import GivenModel, Loaded

CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer_config.json"

_OURS = (
    "architectures",
    "id2label",
    "label2id",
    "problem_type",
    "dtype",
    "quantization_config",
)
"""Of ``config.json``: what a merged model has of its own, or has no longer."""

_GONE = ("torch_dtype", "num_labels")
"""Older words for some of these."""

_OF_READERS = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "special_tokens_map.json",
)
"""What a tokenizer may be read from besides the files that it names itself."""


def restore(folder: Path, loaded: Loaded, name: str, given: GivenModel | None) -> str:
    """Put the base's own files in the place of those that a run has changed.

    Args:
        folder: of a model that was just saved; gains its tokenizer or image processor.
        loaded: its base.
        name: of the base; not looked at if it was given.
        given: the base as an object.

    Returns:
        What had to be added, in words; empty if nothing had.

    Raises:
        ValueError: if the base is not where it was.
    """
    original = _from_object(folder, given) if given else _from_files(folder, loaded, name)
    saved = json.loads((folder / CONFIG).read_text())
    merged = {key: value for key, value in original.items() if key not in (*_OURS, *_GONE)}
    merged |= {key: saved[key] for key in _OURS if key in saved}
    said = ""
    if loaded.inputs.num_labels and loaded.tokenizer is not None:
        if merged.get("pad_token_id") is None:  # without it a classifier reads single texts alone
            merged["pad_token_id"] = saved.get("pad_token_id")
        said = _padding(folder, loaded.tokenizer)
    write_text(folder / CONFIG, json.dumps(merged, indent=2, ensure_ascii=False) + "\n")
    return said


def _from_object(folder: Path, given: GivenModel) -> dict[str, Any]:
    """Save the reader as it was given; gives the model's configuration."""
    given.reader.save_pretrained(folder)
    side, file = getattr(given.reader, "padding_side", None), folder / TOKENIZER
    if side and file.is_file():  # which is saved only as it once was loaded
        _edit(file, {"padding_side": side})
    original: dict[str, Any] = json.loads(given.model.config.to_json_string())
    return original


def _from_files(folder: Path, loaded: Loaded, name: str) -> dict[str, Any]:
    """Copy every file that the reader is of, and the settings of generation."""
    source, before = local_folder(name), set(folder.iterdir())
    if source is None:
        raise ValueError(f"model: the files of {name} are not on this machine any more")
    reader: Any = loaded.image_processor if loaded.tokenizer is None else loaded.tokenizer
    reader.save_pretrained(folder)
    written = {path.name for path in set(folder.iterdir()) - before}
    own = set(getattr(reader, "vocab_files_names", {}).values())
    for file in {*written, *own, *_OF_READERS, GENERATION}:
        _copy(source / file, folder / file)
    original: dict[str, Any] = json.loads((source / CONFIG).read_text())
    return original


def _edit(file: Path, changes: Mapping[str, Any]) -> None:
    found = {**json.loads(file.read_text()), **changes}
    write_text(file, json.dumps(found, indent=2, ensure_ascii=False) + "\n")


def _copy(original: Path, copy: Path) -> None:
    """To the letter; what the base does not have is not there either."""
    if original.is_file():
        shutil.copyfile(original, copy)
    else:
        copy.unlink(missing_ok=True)


def _padding(folder: Path, tokenizer: Any) -> str:
    """A classifier's texts are padded: give the tokenizer a token for it, if it has none."""
    files = [folder / TOKENIZER, folder / "special_tokens_map.json"]
    said: list[Mapping[str, Any]] = [json.loads(f.read_text()) for f in files if f.is_file()]
    if any(each.get("pad_token") for each in said) or not (folder / TOKENIZER).is_file():
        return ""
    token = str(tokenizer.pad_token)
    _edit(files[0], {"pad_token": token})
    return f"the tokenizer has no padding token, which a classifier needs; {token} pads"
