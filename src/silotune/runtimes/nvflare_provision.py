"""Credentials of NVIDIA FLARE, by its own commands: an authority signs what sites ask for.

The usual way is four steps, of which the private key leaves none: ``Authority.create`` (the
coordinator), ``request`` (each party), ``Authority.approve`` (the coordinator), ``package`` (each
party). ``provision_all`` makes all keys in one place, for whoever trusts the coordinator so far.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_MINUTE = 60.0

Kind = Literal["server", "client", "lead"]
"""Of a party."""


@dataclass(frozen=True)
class Address:
    """Where sites reach the server: one port, from the outside in.

    Attributes:
        federation: its name.
        host: of the server, as sites call it; its certificate is for this name.
        port: for everything.
    """

    federation: str
    host: str
    port: int


@dataclass(frozen=True)
class Authority:
    """The coordinator's, which signs.

    Attributes:
        folder: with the root's private key, which stays there.
        address: of the server.
        fingerprint: SHA-256 of the root certificate, to be told to sites by another way.
    """

    folder: Path
    address: Address
    fingerprint: str

    @classmethod
    def create(cls, folder: Path, address: Address) -> Authority:
        """A new one.

        Raises:
            ValueError: if FLARE refuses, or is not installed.
        """
        folder.mkdir(parents=True, mode=0o700)
        profile = {
            "name": address.federation,
            "scheme": "http",
            "connection_security": "mtls",
            "server": {"host": address.host, "fed_learn_port": address.port},
        }
        _profile(folder).write_text(json.dumps(profile))  # YAML, as all JSON is
        words = ["cert", "init", "--profile", str(_profile(folder)), "-o", str(folder / "ca")]
        said = _nvflare(words, folder)
        return cls(folder, address, _after(said, "rootca_fingerprint_sha256:"))

    def approve(self, request: Path, signed: Path) -> Path:
        """Sign a party's request; give the file that goes back to it.

        Raises:
            ValueError: if FLARE refuses.
        """
        words = ["cert", "approve", "-c", str(self.folder / "ca")]
        words += ["--profile", str(_profile(self.folder)), "--out", str(signed), str(request)]
        _nvflare(words, self.folder)
        return signed


def request(folder: Path, federation: str, name: str, kind: Kind, org: str) -> Path:
    """A party's key, which stays in its folder, and the file that asks for a certificate.

    Raises:
        ValueError: if FLARE refuses, or is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    party = _party(name, kind, org)
    asks = folder / "participant.yml"
    asks.write_text(json.dumps({"name": federation, "participants": [party]}))
    _nvflare(["cert", "request", "-p", str(asks), "--out", str(folder)], folder)
    return folder / f"{name}.request.zip"


def package(signed: Path, folder: Path, name: str, fingerprint: str) -> Path:
    """A party's kit, from what came back and the key in its folder.

    Args:
        signed: what came back.
        folder: that ``request`` was given.
        name: of the party.
        fingerprint: of the root, as it was told by another way; FLARE compares.

    Raises:
        ValueError: if FLARE refuses.
    """
    words = ["package", str(signed), "--request-dir", str(folder)]
    words += ["--fingerprint", fingerprint, "-w", str(folder / "kits")]
    _nvflare(words, folder)
    (kit,) = (folder / "kits").glob(f"*/prod_*/{name}")
    return kit


def provision_all(
    folder: Path, address: Address, lead: str, sites: Sequence[str]
) -> Mapping[str, Path]:
    """Everybody's kit, by name, with all private keys made here.

    Raises:
        ValueError: if FLARE refuses, or is not installed.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    server = {"fed_learn_port": address.port, "admin_port": address.port, "scheme": "http"}
    parties = [
        {**_party(address.host, "server", "coordinator"), **server},
        *(_party(site, "client", site) for site in sites),
        _party(lead, "lead", "coordinator"),
    ]
    builders = {
        "workspace.WorkspaceBuilder": {"template_file": ["master_template.yml"]},
        "static_file.StaticFileBuilder": {"config_folder": "config", "scheme": "http"},
        "cert.CertBuilder": {},
        "signature.SignatureBuilder": {},
    }
    project = {
        "api_version": 3,
        "name": address.federation,
        "participants": [{**party, "connection_security": "mtls"} for party in parties],
        "builders": [
            {"path": f"nvflare.lighter.impl.{path}", "args": args}
            for path, args in builders.items()
        ],
    }
    file = folder / "project.yml"
    file.write_text(json.dumps(project))
    _nvflare(["provision", "-p", str(file), "-w", str(folder)], folder)
    kits = folder / address.federation / "prod_00"
    return {name: kits / name for name in (address.host, lead, *sites)}


def _party(name: str, kind: Kind, org: str) -> dict[str, object]:
    plain = "".join(c if c.isalnum() else "_" for c in org)  # what FLARE takes for a name
    if kind == "lead":
        return {"name": name, "type": "admin", "org": plain, "role": "lead"}
    return {"name": name, "type": kind, "org": plain}


def _profile(folder: Path) -> Path:
    return folder / "profile.yml"


def _nvflare(words: Sequence[str], home: Path) -> str:
    """What a command of FLARE says. It keeps notes in HOME, and makes keys readable to others."""
    done = subprocess.run(
        [sys.executable, "-m", "nvflare.cli", *words],
        env=os.environ | {"HOME": str(home.resolve())},
        umask=0o077,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=_MINUTE,
        check=False,
    )
    if done.returncode != 0:
        raise ValueError(f"nvflare {' '.join(words[:2])} failed: {done.stdout.strip()}")
    return done.stdout


def _after(said: str, key: str) -> str:
    for line in said.splitlines():
        if line.startswith(key):
            return line.removeprefix(key).strip().removeprefix("SHA256:")
    raise ValueError(f"nvflare said no {key.rstrip(':')}")
