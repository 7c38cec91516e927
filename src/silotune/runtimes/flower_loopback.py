"""A federation of Flower on this machine: a SuperLink and SuperNodes, with TLS and keys of nodes.

For tests and measurements: all keys are made here, and every process is of this user. Each has a
session of its own, and is ended by its number.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from silotune.core import ClientId

from .flower import NODES, QUIET

SERVER = "superlink"
_HOST = "127.0.0.1"
_BIN = Path(sys.executable).parent
_PATH = f"{_BIN}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
"""Flower starts more of its commands by their bare names."""

_PATIENCE = 120.0
"""Seconds until something that was started is to be there."""


class FlowerLoopback:
    """What runs. Use it as a context manager; the SuperLink is there when that is entered.

    Attributes:
        home: the coordinator's folder for Flower.
    """

    def __init__(self, folder: Path, doors: Mapping[ClientId, Path]) -> None:
        """Makes keys and certificates.

        Args:
            folder: for all of it; what a process says is there in ``<name>.out``.
            doors: the socket of every site (``signed_socket``).
        """
        self.home = folder / "home"
        self._folder, self._doors = folder, doors
        self._port = _free_port()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.home.mkdir(parents=True)
        _certify(folder)
        address, root = f"{_HOST}:{self._port}", str(folder / "ca.crt")
        (self.home / "config.toml").write_text(
            f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "{address}"\n'
            f"root-certificates = {json.dumps(root)}\n"
        )
        for site in doors:
            _make_key(folder / site)

    def __enter__(self) -> FlowerLoopback:
        try:
            self.start(SERVER)
            self._await_server()
            nodes = {site: self._register(site) for site in self._doors}
            (self.home / NODES).write_text(json.dumps(nodes))
            for site in self._doors:
                self.start(site)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self, name: str) -> None:
        """The SuperLink, or a site's SuperNode; either starts what else it needs."""
        words = self._superlink() if name == SERVER else self._supernode(ClientId(name))
        with (self._folder / f"{name}.out").open("ab") as out:
            self._processes[name] = subprocess.Popen(
                words,
                env={
                    **os.environ,
                    **QUIET,
                    "FLWR_HOME": str(self._folder / f"{name}.home"),
                    "PATH": _PATH,
                },
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def kill(self, name: str) -> None:
        """All processes of the SuperLink, or of a site's SuperNode."""
        process = self._processes.pop(name)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def stop(self) -> None:
        """End everything."""
        for name in list(self._processes):
            self.kill(name)

    def command(self, *words: str) -> str:
        """What ``flwr`` says, by the coordinator's folder.

        Raises:
            OSError: if it fails.
        """
        done = subprocess.run(
            [sys.executable, "-m", "flwr.cli.app", *words],
            env={**os.environ, **QUIET, "FLWR_HOME": str(self.home)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
        if done.returncode:
            raise OSError(f"flwr {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def _register(self, site: ClientId) -> int:
        said = self.command("supernode", "register", str(self._folder / f"{site}.pub"))
        found = re.search(r"SuperNode ([0-9]+) registered", said)
        if found is None:
            raise OSError(f"flwr supernode register said: {said}")
        return int(found.group(1))

    def _superlink(self) -> Sequence[str]:
        return [
            *_script("flower-superlink"),
            *("--ssl-ca-certfile", str(self._folder / "ca.crt")),
            *("--ssl-certfile", str(self._folder / "server.crt")),
            *("--ssl-keyfile", str(self._folder / "server.key")),
            "--enable-supernode-auth",
            "--disable-runtime-dependency-installation",
            *("--host", _HOST, "--port", str(self._port)),
            *("--database", str(self._folder / "superlink.db")),
        ]

    def _supernode(self, site: ClientId) -> Sequence[str]:
        return [
            *_script("flower-supernode"),
            *("--root-certificates", str(self._folder / "ca.crt")),
            *("--superlink", f"{_HOST}:{self._port}"),
            *("--host", _HOST, "--port", str(_free_port())),
            *("--auth-supernode-private-key", str(self._folder / site)),
            *("--node-config", f'socket="{self._doors[site]}"'),
        ]

    def _await_server(self) -> None:
        end = time.monotonic() + _PATIENCE
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection((_HOST, self._port), timeout=1.0).close()
                return
            if time.monotonic() > end or self._processes[SERVER].poll() is not None:
                raise OSError(f"no SuperLink starts; see {self._folder / SERVER}.out")
            time.sleep(0.1)


def _script(name: str) -> Sequence[str]:
    """A command of Flower's, of this environment."""
    return [sys.executable, str(_BIN / name)]


def _make_key(path: Path) -> None:
    """A node's: Flower wants an elliptic curve of NIST's, in the format of OpenSSH."""
    key = ec.generate_private_key(ec.SECP384R1())
    path.touch(mode=0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    path.with_name(f"{path.name}.pub").write_bytes(public + b"\n")


def _certify(folder: Path) -> None:
    """An authority, and the SuperLink's certificate of it."""
    root, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer, now = _name("silotune loopback"), datetime.now(UTC)

    def begun(subject: x509.Name, public: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder(issuer, subject, public, x509.random_serial_number())
            .not_valid_before(now - timedelta(hours=1))
            .not_valid_after(now + timedelta(days=7))
        )

    authority = (
        begun(issuer, root.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(root, hashes.SHA256())
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address(_HOST))])
    server = (
        begun(_name(_HOST), key.public_key())
        .add_extension(names, critical=False)
        .sign(root, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(authority.public_bytes(Encoding.PEM))
    (folder / "server.crt").write_bytes(server.public_bytes(Encoding.PEM))
    (folder / "server.key").touch(mode=0o600)
    (folder / "server.key").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _free_port() -> int:
    with socket.socket() as one:
        one.bind((_HOST, 0))
        return int(one.getsockname()[1])
