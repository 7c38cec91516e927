"""A site's part in NVIDIA FLARE: the kit by which its client is started."""

from __future__ import annotations

from pathlib import Path

from silotune.runtimes.nvflare_certificates import Credentials, valid_until
from silotune.runtimes.nvflare_kits import Address, Kit, flare_name, placed, site_kit, write_kit

from .home import Home
from .membership import own_admission, read_tls_key

FLARE = "flare"
"""In a site's home: the kit, and what FLARE leaves beside it."""


def write_own_kit(home: Home) -> Path | None:
    """Write the kit anew; None if the site's federation has no server of FLARE.

    Raises:
        RecordError: if something cannot be read or written.
    """
    kit = _kit(home)
    if kit is not None:
        write_kit(home.path / FLARE, kit)
    return None if kit is None else home.path / FLARE


def own_kit(home: Home) -> Path | None:
    """The kit, as it was written; None if the site's federation has no server of FLARE.

    Raises:
        RecordError: if it was altered.
        ValueError: if its time is over, or not yet come.
    """
    kit = _kit(home)
    if kit is None:
        return None
    shown = [kit["startup/client.crt"], kit["startup/rootCA.pem"]]
    valid_until(shown, f"{home.path}: the site's certificate", "ask for a new invitation")
    return placed(home.path / FLARE, kit)


def _kit(home: Home) -> Kit | None:
    admission = own_admission(home.path)
    if admission is None or not admission.server:
        return None
    return site_kit(
        Address.parse(admission.server),
        admission.federation,
        flare_name(admission.site, admission.site_key),
        Credentials(admission.root, admission.certificate, read_tls_key(home.path, admission)),
        home.socket,
    )
