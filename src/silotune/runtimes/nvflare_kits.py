"""Kits of NVIDIA FLARE, hardened: what a site and a server let a job do, and how they are started.

FLARE's defaults let a coordinator push code to every site, and such code passes its list of classes
by. ``harden_site`` and ``harden_server`` replace FLARE's policies in a kit's local folder with ones
that allow one class and nothing else. Whoever owns the kit does so, after it was made; ``check``
compares before every start.
"""

from __future__ import annotations

import hashlib
import json
import stat
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.x509 import load_pem_x509_certificate

from .nvflare_job import SERVER_CLASS, SITE_CLASS

OWN_FILE = "silotune.json"
"""``silotune_link.flare_site`` reads it at the site."""

_NONE = {"submit_job": "none", "byoc": "none"}
_LEAD = {
    "submit_job": "any",
    "manage_job": "n:submitter",
    "download_job": "none",
    "clone_job": "none",
    "byoc": "none",
    "shell_commands": "none",
    "operate": "none",
    "view": "none",
    "server-predeployed-flwr": "none",
}
_AT_SITE = {"project_admin": _NONE, "org_admin": _NONE, "lead": _LEAD, "member": _NONE}
_AT_SERVER = {
    "project_admin": {**_NONE, "manage_job": "any", "view": "any", "operate": "any"},
    "org_admin": _NONE,
    "lead": {**_LEAD, "view": "any"},
    "member": _NONE,
}

_SILENT = 20
"""Seconds after which the server takes a site for gone; FLARE's default is ten minutes."""


def harden_site(kit: Path, socket: Path) -> Mapping[str, str]:
    """Let jobs name one class, which brings orders to that socket; nothing streams logs.

    Args:
        kit: a site's.
        socket: of its daemon.

    Returns:
        SHA-256 of the files that ``check`` compares, by their place in the kit.

    Raises:
        ValueError: if it is no site's kit.
    """
    _of(kit, "fed_client.json", "site")
    resources = _default(kit)
    resources["class_allow_list"] = [SITE_CLASS]
    resources["class_list_enforcement_mode"] = "enforce"
    resources["allow_log_streaming"] = False  # what went wrong is said in words of the data
    resources["components"] = [
        part for part in resources["components"] if part["id"] != "site_log_streamer"
    ]
    return _written(kit, resources, _AT_SITE, {OWN_FILE: {"socket": str(socket.resolve())}})


def harden_server(kit: Path, folder: Path) -> Mapping[str, str]:
    """Let jobs name one class; keep them in a folder of the server's own.

    Args:
        kit: the server's.
        folder: for jobs and snapshots, in place of one that all users of the machine share.

    Returns:
        SHA-256 of the files that ``check`` compares, by their place in the kit.

    Raises:
        ValueError: if it is no server's kit.
    """
    _of(kit, "fed_server.json", "server")
    own = folder.resolve()  # FLARE does not start with a relative path
    resources = _default(kit)
    resources["class_allow_list"] = [SERVER_CLASS]
    resources["class_list_enforcement_mode"] = "enforce"
    resources["servers"][0]["heart_beat_timeout"] = _SILENT
    resources["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(own / "snapshots")
    for part in resources["components"]:
        if part["id"] == "job_manager":
            part["args"]["uri_root"] = str(own / "jobs")
    resources["components"] = [
        part for part in resources["components"] if part["id"] != "log_receiver"
    ]
    own.mkdir(parents=True, exist_ok=True, mode=0o700)
    return _written(kit, resources, _AT_SERVER, {})


def check(kit: Path, digests: Mapping[str, str]) -> None:
    """Refuse a kit that is not as it was hardened, or whose time is over.

    Args:
        kit: a site's or the server's.
        digests: what hardening it gave.

    Raises:
        ValueError: naming the file, and what to do.
    """
    again = "harden the kit again if you trust what is there"
    if not digests:
        raise ValueError(f"{kit} was never hardened: FLARE's own policies let others run code here")
    for place, digest in digests.items():
        file = kit / place
        if not file.is_file():
            raise ValueError(f"{file} is gone; {again}")
        if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
            raise ValueError(f"{file} is not what hardening the kit wrote; {again}")
    local = kit / "local"
    for file in sorted(local.iterdir()):
        known = f"local/{file.name}" in digests or file.name.endswith((".default", ".sample"))
        if not known:
            raise ValueError(f"{file} does not belong to a hardened kit; take it away")
    startup = kit / "startup"
    for path in (kit, local, startup, *local.iterdir(), *startup.iterdir()):
        mode = stat.S_IMODE(path.stat().st_mode)
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise ValueError(f"{path} can be written by others; chmod go-w {path}")
        if path.suffix == ".key" and mode & 0o077:
            raise ValueError(f"{path} can be read by others; chmod go= {path}")
    valid_until(kit)


def valid_until(kit: Path) -> datetime:
    """When the kit's certificate ends, or its root's if that is sooner (UTC).

    Raises:
        ValueError: if one of them is no certificate, is over, or is not valid yet.
    """
    now, ends = datetime.now(UTC), []
    for file in _certificates(kit):
        try:
            one = load_pem_x509_certificate(file.read_bytes())
        except ValueError as error:
            raise ValueError(f"{file} is no certificate; ask for another kit") from error
        begins, end = one.not_valid_before_utc, one.not_valid_after_utc
        if now > end:
            raise ValueError(
                f"{file} was valid until {end:%Y-%m-%d %H:%M} UTC; ask for another kit"
            )
        if now < begins:
            raise ValueError(
                f"{file} is valid from {begins:%Y-%m-%d %H:%M} UTC, and it is {now:%Y-%m-%d %H:%M} "
                "by this machine's clock; set the clock, or wait"
            )
        ends.append(end)
    if not ends:
        raise ValueError(f"{kit} has no certificate; ask for another kit")
    return min(ends)


def command(kit: Path) -> Sequence[str]:
    """What starts a site's or the server's FLARE process, which is its own and no watchdog.

    Raises:
        ValueError: if the kit is neither.
    """
    startup = kit / "startup"
    if (startup / "fed_client.json").is_file():
        own = json.loads((startup / "fed_client.json").read_text())
        module, file = "client.client_train", "fed_client.json"
        options = [f"uid={own['client']['fqsn']}"]
    elif (startup / "fed_server.json").is_file():
        module, file, options = "server.server_train", "fed_server.json", []
    else:
        raise ValueError(f"{kit} is no kit of a site or a server of NVIDIA FLARE")
    return [
        *(sys.executable, "-u", "-m", f"nvflare.private.fed.app.{module}"),
        *("-m", str(kit.resolve()), "-s", file, "--set", "secure_train=true"),
        *(*options, "org=", "config_folder="),
    ]


def _certificates(kit: Path) -> Sequence[Path]:
    return sorted(f for f in (kit / "startup").iterdir() if f.suffix in (".pem", ".crt"))


def _of(kit: Path, file: str, whose: str) -> None:
    if not (kit / "startup" / file).is_file():
        raise ValueError(f"{kit} is no {whose}'s kit of NVIDIA FLARE: it has no startup/{file}")


def _default(kit: Path) -> dict[str, Any]:
    file = kit / "local" / "resources.json.default"
    resources: dict[str, Any] = json.loads(file.read_text())
    return resources


def _written(
    kit: Path,
    resources: Mapping[str, object],
    permissions: Mapping[str, object],
    others: Mapping[str, object],
) -> Mapping[str, str]:
    """Digests of what was written, and of FLARE's own configuration beside it."""
    contents: Mapping[str, object] = {
        "resources.json": resources,
        "authorization.json": {"format_version": "1.0", "permissions": permissions},
        **others,
    }
    for name, content in contents.items():
        file = kit / "local" / name
        file.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
        file.chmod(0o600)
    startup = sorted(
        f for f in (kit / "startup").iterdir() if f.suffix in (".json", ".pem", ".crt")
    )
    files = [*(kit / "local" / name for name in contents), *startup]
    return {
        str(file.relative_to(kit)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files
    }
