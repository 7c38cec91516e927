"""``doctor CONFIG``: whether what it names works out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from silotune.config import ConfigError, build, in_keys, notices
from silotune.federation.doctor import configuration
from silotune.federation.environment import Check

from .config_source import chosen

OPEN_ENGINES = {
    "flower": "whoever reaches Flower's SuperLink, with nothing but the public certificate of its "
    "authority, can run code on its machine and at every SuperNode; they cannot forge an order or "
    "an answer, which are signed. Let the network reach no more of it than /v1/fleet/, and "
    "run each SuperNode as a user that can read nothing of the site",
    "ray": "every member of a Ray cluster can run code on all others; use it on machines of one "
    "owner",
}
"""What a runtime gives up, by its name."""


def of_config(name: str, overrides: Sequence[str]) -> Iterator[Check]:
    """Every finding of a configuration, in the words of the file format."""
    try:
        config = chosen(name, overrides)
        federation = build(config)
    except ConfigError as error:
        yield from (Check(what="configuration", ok=False, text=p) for p in error.problems)
        return
    remarks = "; ".join(notices(config))
    yield Check(what="configuration", ok=True, text=f"valid; {remarks}" if remarks else "valid")
    if config.runtime in OPEN_ENGINES:
        yield Check(what="runtime", ok=True, text=OPEN_ENGINES[config.runtime])
    yield from map(_in_keys, configuration(federation, Path(config.output_dir)))


def _in_keys(finding: Check) -> Check:
    named = "train.device" if finding.what == "device" else finding.what
    return replace(finding, what=named, text=in_keys(finding.text))
