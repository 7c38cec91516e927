"""``site.yaml``: what a site is and what it takes part in, as its owner writes it by hand.

Keys are closed, and what is not said is not allowed. A file that cannot be read, says something
unknown or contradicts itself makes no site, so that whoever asks for one can only refuse.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from silotune.federation.records import Records
from silotune.site import OwnSite
from silotune.site.guarded import check_guarded, check_private
from silotune.terms import Machine

from .errors import ConfigError
from .load import read_mapping
from .messages import LIMITS, kind, shown
from .site_sections import SiteConfig, SiteDataConfig, section_in
from .yaml import KeyPath


def read_site(path: Path) -> OwnSite:
    """What a site's file says; read anew for every order, so that a change counts at once.

    Args:
        path: of ``site.yaml``.

    Raises:
        ConfigError: with one line for each problem: place, key, what is wrong, the cure.
    """
    values, lines = read_mapping(path, "`silotune site join`")
    try:
        check_guarded(path)
        config = SiteConfig.model_validate(values)
        own = _site(config, path.resolve().parent)
        if own.home.exists():
            check_private(own.home)
    except ValidationError as error:
        raise ConfigError(_problems(error, path, lines)) from error
    except OSError as error:
        raise ConfigError([str(error)]) from error
    except ValueError as error:
        raise ConfigError(
            f"{path}: {_in_keys(line)}" for line in str(error).splitlines()
        ) from error
    return own


def _site(config: SiteConfig, folder: Path) -> OwnSite:
    data = config.data
    return OwnSite(
        name=config.name,
        records=Records(
            clients={config.name: _tables(data, folder)},
            delimiter=data.delimiter,
            encoding=data.encoding,
            label_map=data.label_map,
            num_examples={config.name: data.num_examples},
            num_held_out=data.num_held_out and {config.name: data.num_held_out},
            valid_fraction=data.valid_fraction,
        ),
        home=_place(config.home, folder),
        models={digest: _place(place, folder) for digest, place in config.models.items()},
        machine=Machine(
            device=config.device, threads=config.threads, prefix_cache=config.prefix_cache
        ),
        policy=config.policy.build(),
    )


def _tables(data: SiteDataConfig, folder: Path) -> Path | dict[str, Path]:
    """The whole path, or the files inside it that are named."""
    place = _place(data.path, folder)
    named = {part: name for part, name in data.splits.model_dump().items() if name is not None}
    if not named:
        return place
    if "train" not in named:
        raise ValueError("splits: name the file to train on too (train)")
    return {part: place / name for part, name in named.items()}


def _place(text: str, folder: Path) -> Path:
    return folder / Path(text).expanduser()


def _keys(section: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in section.model_fields.items():
        yield name, prefix + name
        if inner := section_in(field.annotation):
            yield from _keys(inner, f"{prefix}{name}.")


_KEYS = {**dict(_keys(SiteConfig)), "clients": "name"}
"""Field of an object -> key of the file."""


def _in_keys(line: str) -> str:
    field, colon, text = line.partition(":")
    return f"{_KEYS.get(field, field)}{colon}{text}"


def _problems(error: ValidationError, path: Path, lines: Mapping[KeyPath, int]) -> Iterator[str]:
    """One line for each key that is wrong."""
    told = set[str]()
    for entry in error.errors(include_url=False):
        keys, text = _told(entry)
        if (key := ".".join(keys)) not in told:
            told.add(key)
            at = next((lines[keys[:n]] for n in range(len(keys), 0, -1) if keys[:n] in lines), None)
            yield f"{path}{f':{at}' if at else ''}: {key}: {text}"


def _told(entry: Any) -> tuple[KeyPath, str]:
    """The key that an error of pydantic is about, and what is wrong with it."""
    section: type[BaseModel] | None = SiteConfig
    keys: list[str] = []
    annotation: Any = SiteConfig
    example = ""
    for part in entry["loc"]:
        if section is None:
            break
        keys.append(str(part))
        if part not in section.model_fields:
            near = get_close_matches(str(part), section.model_fields, 1)
            hint = f"did you mean {near[0]}?" if near else ""
            return tuple(keys), f"unknown key; {hint or f'there are {_names(section)}'}"
        field = section.model_fields[part]
        annotation, section = field.annotation, section_in(field.annotation)
        example = f"; for example {field.examples[0]}" if field.examples else ""
    if entry["type"] == "missing":
        return tuple(keys), f"is missing; set it{example}"
    if entry["type"] in LIMITS:
        limit = LIMITS[entry["type"]].format(**entry.get("ctx", {}))
        return tuple(keys), f"{limit}, not {shown(entry['input'])}{example}"
    if entry["type"] == "string_pattern_mismatch":
        return tuple(keys), (
            f"must be a SHA-256, 64 of the digits 0 to 9 and a to f, not {shown(entry['input'])}"
        )
    if section is not None:
        return tuple(keys), f"takes `key: value` pairs, not {shown(entry['input'])}"
    return tuple(keys), f"must be {kind(annotation)}, not {shown(entry['input'])}{example}"


def _names(section: type[BaseModel]) -> str:
    return ", ".join(section.model_fields)
