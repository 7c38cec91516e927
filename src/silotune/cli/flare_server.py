"""``federation serve``: the coordinator's server of NVIDIA FLARE, which sites connect to."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from pathlib import Path

from silotune.federation.flare import Flare
from silotune.federation.members import Members
from silotune.privacy.ledger.private_files import make_private
from silotune.runtimes.nvflare_kits import Address, command
from silotune_link.keep import kept

from .console import say, speaker
from .members import endings, place_of

LOOK = 2.0
"""Seconds between two looks at who is a member."""

SERVER_LOG = "server.log"
"""Beside the server's jobs: what FLARE's server says, and when it was started again."""


def serve_flare(folder: Path | None) -> None:
    """Run the server until this process is told to end; it is started again when it dies.

    It is also started again when somebody is a member no more, since FLARE reads only then who may
    not connect, and when its certificate is renewed. Rounds that go on are none the worse.

    Raises:
        ValueError: if there is no federation with a server, its files were altered, or its port is
            taken.
        RuntimeError: if it can no longer be started again.
    """
    place = place_of(folder)
    members = Members.open(place)
    flare = members.flare
    if flare is None:
        raise ValueError(
            f"{place}: has no server of NVIDIA FLARE; make a federation that has one: silotune "
            "federation create NAME --sites A,B --nvflare --server HOST"
        )
    _check_port(flare.address)
    make_private(flare.work)
    log = flare.work / SERVER_LOG
    say(speaker(), f"{members.name}: sites reach the server at {flare.address}; Ctrl-C ends it")
    say(speaker(), f"what FLARE says of connections and jobs: {log}")
    told: set[str] = set()
    _looked(place, flare, told)
    while True:
        shown = flare.renew()
        env = {"HOME": str(flare.work.resolve())}
        with kept(command(flare.server()), log, env) as keeper:
            while not _looked(place, flare, told) and flare.renew() == shown:
                _wait(keeper)
        say(speaker(), "the server is started again: who may connect to it is not as before")


def _looked(place: Path, flare: Flare, told: set[str]) -> bool:
    """Whether others may connect than before; what people have to know is said once."""
    members = Members.open(place)
    for line in endings(members):
        if line not in told:
            told.add(line)
            say(speaker(), line)
    return flare.disable(members.flare_names())


def _wait(keeper: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        keeper.wait(LOOK)
        raise RuntimeError("what keeps FLARE's server running is gone; serve again")


def _check_port(address: Address) -> None:
    """Refuse a port that another program has."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", address.port))
        except OSError as error:
            raise ValueError(
                f"port {address.port}: another program has it, or this user may not listen there "
                f"({error.strerror}); end that one, perhaps another `federation serve`"
            ) from error
