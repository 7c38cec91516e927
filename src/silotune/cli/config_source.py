"""Which configuration the word on the command line means, and what to say of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from silotune.certificate.guarantee import NOT_PRIVATE, SEEDED
from silotune.config import Config, ConfigError, build, dropped, in_keys, load_config, notices
from silotune.core.files import DamagedError
from silotune.federation.description import Description
from silotune.federation.identity import decided_in, describe, described_in, differences
from silotune.runs.folder import RunFolder

from .errors import note
from .templates import bundled


def chosen(name: str, overrides: Sequence[str], output_dir: str | None = None) -> Config:
    """Load a file, the configuration of a run's folder, or a bundled one; the first that is there.

    Only a file of the user's own may name a method whose code is imported. What overrides drop
    from a file is said on stderr.

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
        saved(RunFolder(path))
        path, of_run = path / "config.yaml", True
    elif path.is_dir() and RunFolder(path).state.is_file():
        raise DamagedError(
            f"{path}/config.yaml: is missing; resume the run (--resume), which writes it again, or "
            f"name the file of the configuration, with --output-dir {path}"
        )
    elif path.is_file() and RunFolder(path.parent).run.is_file():
        of_run = True
    elif not path.exists():
        path = bundled().get(name, path)
    if output_dir is not None:
        given.append(_folder(output_dir))
    config = load_config(path, given, of_run=of_run)
    if lost := dropped(path, given):
        note(f"overrides drop from the file: {', '.join(lost)}")
    return config


def of_run(folder: RunFolder) -> Description:
    """The federation that a run's folder was made by, from what is described beside the result.

    Raises:
        RecordError: if there is no run.
        ConfigError: if its configuration cannot be read.
        ValueError: if it was made from objects, and some of them no file holds; or if the
            configuration is not the one that it was made by.
    """
    RunFolder.existing(folder.path)
    if not folder.config.is_file():
        with folder.advising():
            return described_in(folder.description)
    federation = build(saved(folder))
    if not folder.description.is_file():
        return federation
    with folder.advising():
        differ = differences(decided_in(folder.description), describe(federation))
    changed = [text for text in differ if text.startswith("terms.") and not _is_place(text)]
    if changed:
        raise ValueError(
            f"{folder.config}: was changed since the run began: {'; '.join(changed)}; {_CURE}"
        )
    return federation


def saved(folder: RunFolder) -> Config:
    """The configuration in the folder of a run.

    Raises:
        ConfigError: if it cannot be used, with what helps.
    """
    try:
        return load_config(folder.config, [], of_run=True)
    except ConfigError as error:
        if not folder.state.is_file():
            raise
        raise ConfigError([*error.problems, f"{folder.config}: {_CURE}"]) from error


_CURE = "remove the file and resume the run (--resume), which writes it as the run began"


def _is_place(difference: str) -> bool:
    """Whether it is of where the base lies; what it is shows by its digest."""
    return difference.startswith("terms.model ")


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
