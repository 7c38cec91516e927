"""Couriers: the way to clients that are at their sites, as the configuration names it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from silotune.config import Config
from silotune.core import ClientId
from silotune.federation.members import Members
from silotune.runs.folder import RunFolder
from silotune.runtimes import Courier

from .console import say, speaker
from .members import endings


def check_kit(config: Config) -> None:
    """That the coordinator's folder is there, if a configuration names one.

    Raises:
        ValueError: naming the key.
    """
    kit = config.federation.kit
    if config.federation.sites and kit is not None and not (Path(kit) / "federation.json").exists():
        raise ValueError(
            f"federation.kit: there is no federation in {kit}; name the folder that `silotune "
            "federation create` made"
        )


@contextmanager
def courier_of(config: Config, folder: RunFolder) -> Iterator[Courier | None]:
    """The way to a configuration's sites, open; None where clients are on this machine.

    Args:
        config: names the sites, the kit and the runtime.
        folder: of the run.

    Raises:
        ValueError: if a site is no member, or the kit is none.
        ConnectionError: if an engine cannot be reached.
    """
    if not config.federation.sites:
        yield None
        return
    assert config.federation.kit is not None, "a rule of the configuration"
    members = Members.open(Path(config.federation.kit))
    names = [ClientId(name) for name in config.federation.sites]
    keys = members.public_keys(names)
    if strangers := [name for name in names if name not in keys]:
        raise ValueError(
            f"federation.sites: {', '.join(strangers)} is no member of {members.name} now; "
            "`silotune federation status` shows why"
        )
    for line in endings(members, names):
        say(speaker(as_json=True), line)  # what a script reads stays as it is
    if config.runtime == "nvflare":
        from silotune.runtimes.nvflare import NvflareCourier

        if members.flare is None:
            raise ValueError(
                f"runtime: nvflare needs a server, and {members.name} was created without one: "
                "silotune federation create NAME --sites A,B --nvflare --server HOST"
            )
        with NvflareCourier(members.flare.lead(), keys, folder.path / "engine") as flare:
            yield flare
        return
    if config.runtime == "flower":
        from silotune.runtimes.flower import FlowerCourier

        home = members.folder / "flower"
        place = folder.path / "engine"
        with FlowerCourier(home, members.federation, members.key, keys, place) as flower:
            yield flower
        return
    from silotune.runtimes.folder import FolderCourier

    root = Path(config.federation.folder or members.folder / "exchange")
    with FolderCourier(root, members.federation, members.key, keys) as courier:
        yield courier
