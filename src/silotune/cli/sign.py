"""``privacy sign``: the owners of a run's accounts sign its certificate, each with its own key."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from silotune.certificate.evidence import place_of
from silotune.certificate.signature import FOLDER, sign
from silotune.privacy.ledger.ledger import Ledger
from silotune.privacy.ledger.store import LEDGER
from silotune.runs.folder import RunFolder
from silotune.runs.privacy_statement import read_certificate

from .console import emit, say, speaker


def sign_run(path: Path, silos: Sequence[str], *, as_json: bool) -> None:
    """Sign for silos whose own folder is here; for all of them if none is named.

    Raises:
        ValueError: if nothing is claimed, a silo has no account, or its ledger is not here or not
            what the certificate is of.
    """
    console, folder = speaker(as_json=as_json), RunFolder.existing(path)
    said = read_certificate(folder.privacy)
    if said is None:
        raise ValueError(f"{folder.privacy}: claims nothing, so there is nothing to sign")
    keys = {}
    for name in silos or said.silos:
        home = place_of(folder, said.unit, name)
        if not (home / LEDGER).is_file():
            raise ValueError(
                f"silo: {home / LEDGER} is not here; {name} signs where its own ledger is"
            )
        ledger = Ledger(home / LEDGER)
        ledger.follow()
        keys[name] = sign(folder.privacy, said, name, home, ledger.chain)
        say(console, f"signed:   {name}, public key {keys[name]}")
    say(console, f"in:       {folder.path / FOLDER}; hand the public keys on by another way")
    if as_json:
        emit({"certificate": str(folder.privacy), "keys": keys})
