"""``federation harden`` and ``federation serve``: the coordinator's server of NVIDIA FLARE."""

from __future__ import annotations

from pathlib import Path

from silotune.federation.members import Members
from silotune.runtimes.nvflare_hardened import check_hardened, note_hardened
from silotune.runtimes.nvflare_kits import command, harden_server
from silotune_link.keep import kept

from .console import say, speaker
from .members import place_of

FLARE = "flare"
"""In a federation's folder: jobs and snapshots of the server, and what FLARE notes at home."""


def harden_own_server(folder: Path | None, kit: Path) -> None:
    """Let jobs name one class, and keep them in the federation's folder.

    Raises:
        ValueError: if it is no server's kit, others can change it, or there is no federation.
    """
    own = Members.open(place_of(folder)).folder
    note_hardened(own, kit, harden_server(kit, own / FLARE))
    say(speaker(), f"hardened {kit}: a job can carry orders, and do nothing else")


def serve_flare(folder: Path | None, kit: Path) -> None:
    """Run the server until this process is told to end; it is started again when it dies.

    Raises:
        ValueError: if the kit is not as it was hardened, or there is no federation.
        RuntimeError: if it can no longer be started again.
    """
    members = Members.open(place_of(folder))
    check_hardened(members.folder, kit, "silotune federation harden")
    home = (members.folder / FLARE).resolve()
    with kept(command(kit), env={"HOME": str(home)}) as keeper:
        say(speaker(), f"{members.name}: FLARE's server runs by the kit {kit}; Ctrl-C ends it")
        keeper.wait()
        raise RuntimeError("what keeps FLARE's server running is gone; serve again")
