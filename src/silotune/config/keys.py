"""What a key may be called: its home name, an alias from other tools, or flat at the top level.

``Setting`` is one key given a value somewhere; files and overrides both become lists of settings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from difflib import SequenceMatcher
from typing import NamedTuple

from .schema import LEAVES, SECTIONS
from .yaml import KeyPath

ALIASES: Mapping[str, str] = {
    "model_name_or_path": "model.name_or_path",
    "num_server_rounds": "train.num_rounds",
    "per_sample_max_grad_norm": "privacy.max_grad_norm",
    "lora_r": "method.r",
    "lora_target_modules": "method.target_modules",
    "layers": "method.layers_to_transform",
}
"""Names that users of transformers, TRL, dp-transformers and Flower know -> home."""

SWITCHES: Mapping[str, str] = {"privacy.lifetime": "privacy.lifetime.record"}
"""Sections that may be ``off`` -> the key that this turns off."""

_CHOOSING = (
    "no round is chosen by its score, which private records would then decide: a run ends with its "
    "last state, or with the mean of its last ones (train.tail_average)"
)
ABSENT: Mapping[str, str] = {
    "packing": "texts are never packed: several in one row would move each other's gradients, so "
    "that clipping bounds none of them; records of similar lengths are padded to each other",
    "load_best_model_at_end": _CHOOSING,
    "metric_for_best_model": _CHOOSING,
    "early_stopping_patience": _CHOOSING,
    "gradient_accumulation_steps": "a batch is cut by itself: train.batch_size is the whole of it, "
    "train.per_device_train_batch_size how many records go through the model at once",
}
"""Names that users of transformers and TRL look for in vain -> why, and what there is."""

CLOSE = 0.7  # how similar two names must be (0 to 1) for a guess
PART = 0.85  # how similar 'epsilon' is to 'target_epsilon'
WORD = 4  # letters that make a word


class Setting(NamedTuple):
    """One key with its value: the name as written, and where, for messages."""

    key: str
    value: object
    where: str


def _spellings() -> Mapping[str, str]:
    names = {key: key for key in LEAVES}
    for alias, home in ALIASES.items():
        names |= {alias: home, f"{home.split('.')[0]}.{alias}": home}
    for leaf, homes in FLAT.items():
        if len(homes) == 1 and leaf not in names:
            names[leaf] = homes[0]
    return names


def _flat() -> Mapping[str, list[str]]:
    """Last part of a key of a first-level section -> its homes."""
    flat: dict[str, list[str]] = {}
    for key in LEAVES:
        if key.count(".") == 1:
            flat.setdefault(key.split(".")[1], []).append(key)
    return flat


FLAT = _flat()
SPELLINGS = _spellings()
"""Every accepted name of a key -> its home."""


def home(key: str) -> str | None:
    """The home of a name; None if it has none.

    Whatever stands below ``method`` has one until the method is known, whose own key it may be.
    """
    section, _, name = key.partition(".")
    loose = section == "method" and name.isidentifier()
    return SPELLINGS.get(key) or (key if loose else None)


def flatten(
    section: Mapping[object, object], path: KeyPath, places: Mapping[KeyPath, str]
) -> Iterator[Setting | str]:
    """Turn nested sections into settings; the line for one that is no mapping.

    Args:
        section: keys and values as read.
        path: where the section stands.
        places: path -> place to tell the user; the empty path is the whole.
    """
    for name, value in section.items():
        inner = (*path, str(name))
        key, place = ".".join(inner), places.get(inner, places[()])
        if key not in SECTIONS:
            yield Setting(key, value, place)
        elif key in SWITCHES and value == "off":
            yield Setting(SWITCHES[key], False, place)
        elif isinstance(value, Mapping):
            yield from flatten(value, inner, places)
        elif value is not None:
            yield f"{place}: {key}: is a section and takes `key: value` pairs, not {value!r}"


def unknown(key: str, own: Collection[str] = ()) -> str:
    """The sentence for a name that is no key: what was probably meant, or what there is.

    Args:
        key: the name.
        own: keys of the section ``method`` that the chosen method has.
    """
    if (last := key.rpartition(".")[2]) in ABSENT:
        return f"there is no such key: {ABSENT[last]}"
    if len(FLAT.get(key, [])) > 1:
        return f"could be several keys; write {' or '.join(FLAT[key])}"
    if near := _nearest(key, [f"method.{name}" for name in own]):
        return f"unknown key; did you mean {near}?"
    section = key.rpartition(".")[0]
    inside = section if section in SECTIONS else ""
    known = [k for k in [*SECTIONS, *LEAVES] if k.rpartition(".")[0] == inside]
    return f"unknown key; there are {', '.join(known)}"


def _nearest(key: str, own: Collection[str]) -> str | None:
    """The home of the most similar name, if it is similar enough."""
    candidates = {**SPELLINGS, **{k: k for k in (*own, *SECTIONS)}}
    best, _, home = max((_likeness(key, n), _ratio(key, n), h) for n, h in candidates.items())
    return home if best >= CLOSE else None


def _likeness(key: str, name: str) -> float:
    """How similar the last parts are; a word that is part of the other is nearly the same."""
    last, known = key.rpartition(".")[2], name.rpartition(".")[2]
    if len(last) >= WORD and last in known:
        return max(PART, _ratio(last, known))
    return _ratio(last, known)


def _ratio(a: str, b: str) -> float:
    return SequenceMatcher(None, a.lower(), b.lower(), autojunk=False).ratio()
