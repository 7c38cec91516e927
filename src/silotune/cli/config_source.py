"""Which configuration the word on the command line means, and what to say of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from silotune.certificate.guarantee import NOT_PRIVATE, SEEDED
from silotune.config import Config, bundled, load_config, notices


def chosen(name: str, overrides: Sequence[str], output_dir: str | None = None) -> Config:
    """Load a file, the configuration of a run's folder, or a bundled one; the first that is there.

    Args:
        name: as given.
        overrides: ``key=value``.
        output_dir: of ``--output-dir``.

    Raises:
        ConfigError: one line for each problem.
    """
    path, given, of_run = Path(name), list(overrides), False
    if path.is_dir() and (path / "config.yaml").is_file():
        given.insert(0, _folder(name))  # it may have been moved since
        path, of_run = path / "config.yaml", True
    elif not path.exists() and name in bundled():
        path = Path(str(files("silotune.config"))) / "bundled" / f"{name}.yaml"
    if output_dir is not None:
        given.append(_folder(output_dir))
    return load_config(path, given, of_run=of_run)


def warnings(config: Config, found: Sequence[str]) -> list[str]:
    """What a user should know: of the configuration, unless data and model said it better.

    Args:
        config: as resolved.
        found: notices of data and model; like the others they begin with their key.
    """
    keys = {notice.partition(":")[0] for notice in found}
    own = [notice for notice in notices(config) if notice.partition(":")[0] not in keys]
    if config.privacy.unit == "none":
        own.append("privacy.unit: none; nothing bounds what messages and adapter reveal")
    if config.privacy.insecure_seeded_noise:
        own.append(f"privacy.insecure_seeded_noise: {NOT_PRIVATE}. {SEEDED}")
    return [f"notice: {text}" for text in (*own, *found)]


def _folder(path: str) -> str:
    """An override; JSON is YAML, and quotes what needs it."""
    return f"output_dir={json.dumps(path)}"
