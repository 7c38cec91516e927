"""Which configuration the word on the command line means, and what to say of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from silotune.certificate.guarantee import NOT_PRIVATE, SEEDED
from silotune.config import Config, build, bundled, in_keys, load_config, notices
from silotune.federation.description import Description
from silotune.federation.identity import described_in
from silotune.runs.folder import RunFolder


def chosen(name: str, overrides: Sequence[str], output_dir: str | None = None) -> Config:
    """Load a file, the configuration of a run's folder, or a bundled one; the first that is there.

    Only a file of the user's own may name a method whose code is imported.

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
    elif path.is_file() and RunFolder(path.parent).run.is_file():
        of_run = True
    elif not path.exists() and name in bundled():
        path = Path(str(files("silotune.config"))) / "bundled" / f"{name}.yaml"
    if output_dir is not None:
        given.append(_folder(output_dir))
    return load_config(path, given, of_run=of_run)


def of_run(folder: RunFolder) -> Description:
    """The federation that a run's folder was made by, from what is described beside the result.

    Raises:
        RecordError: if there is no run.
        ConfigError: if its configuration cannot be read.
        ValueError: if it was made from objects, and some of them no file holds.
    """
    RunFolder.existing(folder.path)
    if not folder.config.is_file():
        return described_in(folder.description)
    return build(load_config(folder.config, [], of_run=True))


def warnings(config: Config, data_notices: Sequence[str]) -> list[str]:
    """What a user should know: of the configuration, unless data and model said it better.

    Args:
        config: as resolved.
        data_notices: notices of data and model; like the others they begin with their key or field.
    """
    data_notices = list(map(in_keys, data_notices))
    keys = {notice.partition(":")[0] for notice in data_notices}
    own = [notice for notice in notices(config) if notice.partition(":")[0] not in keys]
    if config.privacy.unit == "none":
        own.append("privacy.unit: none; nothing bounds what messages and adapter reveal")
    if config.privacy.insecure_seeded_noise:
        own.append(f"privacy.insecure_seeded_noise: {NOT_PRIVATE}. {SEEDED}")
    return [f"notice: {text}" for text in (*own, *data_notices)]


def _folder(path: str) -> str:
    """An override; JSON is YAML, and quotes what needs it."""
    return f"output_dir={json.dumps(path)}"
