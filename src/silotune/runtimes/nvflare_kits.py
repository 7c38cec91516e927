"""Kits of NVIDIA FLARE: the folders by which a server, a site and a coordinator are started.

FLARE's own kits let a coordinator push code to every site, and such code passes its list of classes
by. These allow a job one class and nothing else, and stream no logs. A kit is computed from what
its owner has, so that one that was altered is seen before every start.
"""

from __future__ import annotations

import importlib.util
import ipaddress
import json
import re
import shutil
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from silotune.core.files import RecordError, in_words
from silotune.privacy.ledger.private_files import make_private, write_private

from .nvflare_certificates import LONGEST_NAME, Credentials
from .nvflare_job import SERVER_CLASS, SITE_CLASS

Kit = Mapping[str, str]
"""Texts of files, by their place in the kit."""

LEAD = "lead@silotune"
"""The coordinator's name in its certificate."""

PORT = 8002
"""Where FLARE's servers usually listen."""

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
_AT_SERVER = {**_AT_SITE, "lead": {**_LEAD, "view": "any"}}

_SILENT = 20
"""Seconds after which the server takes a site for gone; FLARE's default is ten minutes."""

_ODD = re.compile(r"""[\s'"\\]""")
"""What FLARE's launcher makes two words of, or one."""

_LABEL = re.compile("[A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?")


@dataclass(frozen=True)
class Address:
    """Where sites reach a server: one port, from the outside in.

    Attributes:
        host: as sites call it; its certificate is for this name. For one of this machine itself
            (``localhost``) FLARE listens to this machine alone.
        port: for everything.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """``HOST`` or ``HOST:PORT``, the inverse of ``str``.

        Raises:
            ValueError: if it is neither.
        """
        host, _, port = text.partition(":")
        number = int(port) if port.isascii() and port.isdigit() else 0 if port else PORT
        if not _is_host(host) or not 0 < number < 65536 or text.endswith(":"):
            raise ValueError(
                f"server: {text[:100]!r} is no HOST or HOST:PORT; a name of the network or an IPv4 "
                f"address, at most {LONGEST_NAME} letters"
            )
        return cls(host, number)

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def flare_name(site: str, key: str) -> str:
    """By which FLARE knows a site: another one for every key, so that who was revoked stays so.

    Args:
        site: its name.
        key: its public key, 64 hexadecimal digits.
    """
    return f"{re.sub('[^A-Za-z0-9_-]', '_', site)[:39]}-{key[:24]}"


def site_kit(address: Address, federation: str, name: str, shown: Credentials, socket: Path) -> Kit:
    """Jobs may name one class, which brings orders to a daemon's socket.

    Args:
        address: of the server.
        federation: its identity.
        name: of the site, in its certificate.
        shown: its credentials.
        socket: of its daemon.
    """
    server = {
        "name": federation,
        "service": {"target": str(address), "scheme": "http"},
        "identity": address.host,
    }
    client = {
        **_files("client"),
        "fqsn": name,
        "is_leaf": True,
        "connection_security": "mtls",
    }
    managers = "nvflare.app_common.resource_managers.gpu_resource_manager.GPUResourceManager"
    consumers = "nvflare.app_common.resource_consumers.gpu_resource_consumer.GPUResourceConsumer"
    launcher = "nvflare.app_common.job_launcher.client_process_launcher.ClientProcessJobLauncher"
    resources = {
        **_classes(SITE_CLASS),
        "allow_log_streaming": False,  # what went wrong is said in words of the data
        "client": {"retry_timeout": 30, "compression": "Gzip"},
        "components": [
            _part("resource_manager", managers, num_of_gpus=0, mem_per_gpu_in_GiB=0),
            _part("resource_consumer", consumers),
            _part("process_launcher", launcher),
        ],
    }
    return {
        "startup/fed_client.json": _text(
            {"format_version": 2, "servers": [server], "client": client}
        ),
        **_shown("client", shown),
        **_policy(resources, _AT_SITE),
        "local/silotune.json": _text({"socket": str(socket.resolve())}),
    }


def server_kit(address: Address, federation: str, shown: Credentials, work: Path) -> Kit:
    """Jobs may name one class, and are kept in a folder of the server's own.

    Args:
        address: at which it listens.
        federation: its identity.
        shown: its credentials.
        work: folder for jobs and snapshots, in place of one that all users of a machine share.
    """
    server = {
        "name": federation,
        "service": {"target": str(address), "scheme": "http"},
        "admin_server": address.host,
        "admin_port": address.port,
        **_files("server"),
        "connection_security": "mtls",
    }
    own = work.resolve()  # FLARE does not start with a relative path
    storage = "nvflare.app_common.storages.filesystem_storage.FilesystemStorage"
    snapshots = {"root_dir": str(own / "snapshots"), "uri_root": "/"}
    scheduler = "nvflare.app_common.job_schedulers.job_scheduler.DefaultJobScheduler"
    manager = "nvflare.apis.impl.job_def_manager.SimpleJobDefManager"
    launcher = "nvflare.app_common.job_launcher.server_process_launcher.ServerProcessJobLauncher"
    resources = {
        **_classes(SERVER_CLASS),
        "servers": [
            {
                "admin_storage": "transfer",
                "max_num_clients": 10_000,
                "heart_beat_timeout": _SILENT,
                "admin_timeout": 10.0,
            }
        ],
        "snapshot_persistor": {
            "path": "nvflare.app_common.state_persistors.storage_state_persistor."
            "StorageStatePersistor",
            "args": {"uri_root": "/", "storage": {"path": storage, "args": snapshots}},
        },
        "components": [
            _part("job_scheduler", scheduler, max_jobs=4),
            _part("job_manager", manager, uri_root=str(own / "jobs"), job_store_id="job_store"),
            {"id": "job_store", "path": storage},
            _part("process_launcher", launcher),
        ],
    }
    return {
        "startup/fed_server.json": _text({"format_version": 2, "servers": [server]}),
        **_shown("server", shown),
        **_policy(resources, _AT_SERVER),
    }


def lead_kit(address: Address, federation: str, shown: Credentials) -> Kit:
    """By which a coordinator submits jobs.

    Args:
        address: of the server.
        federation: its identity.
        shown: the coordinator's credentials.
    """
    admin = {
        "project_name": federation,
        "username": LEAD,
        "server_identity": address.host,
        "scheme": "http",
        "host": address.host,
        "port": address.port,
        "connection_security": "mtls",
        "uid_source": "cert",
        "with_file_transfer": True,
        "upload_dir": "transfer",
        "download_dir": "transfer",
        "client_key": "client.key",
        "client_cert": "client.crt",
        "ca_cert": "rootCA.pem",
    }
    timeouts = {"idle_timeout": 900.0, "login_timeout": 10.0, "authenticate_msg_timeout": 2.0}
    return {
        "startup/fed_admin.json": _text({"format_version": 1, "admin": admin}),
        **_shown("client", shown),
        "local/resources.json": _text(
            {"format_version": 1, "admin": {**timeouts, "with_debug": False, "prompt": "> "}}
        ),
    }


def write_kit(folder: Path, kit: Kit) -> None:
    """Put a kit in place, for its owner's eyes; what a job left beside it stays.

    Raises:
        RecordError: if it cannot be written, or FLARE takes no folder of this name.
    """
    if odd := _ODD.search(str(folder.resolve())):
        raise RecordError(f"{folder}: NVIDIA FLARE takes no path with {odd[0]!r}; choose another")
    with in_words(folder):
        for part in ("startup", "local"):
            shutil.rmtree(folder / part, ignore_errors=True)
            make_private(folder / part)
        for place, text in kit.items():
            write_private(folder / place, text.encode())


def placed(folder: Path, kit: Kit) -> Path:
    """A kit in its folder: written if it is not there, and compared if it is.

    Raises:
        RecordError: as ``check_kit``, or if it cannot be written.
    """
    if not (folder / "startup").exists():
        write_kit(folder, kit)
    check_kit(folder, kit)
    return folder


def check_kit(folder: Path, kit: Kit) -> None:
    """Refuse a kit that is not as it was written.

    Raises:
        RecordError: naming the file, and what to do.
    """
    cure = f"take {folder} away if you do not know why: it is written anew"
    with in_words(folder):
        for place, text in kit.items():
            file = folder / place
            if not file.is_file() or file.read_bytes() != text.encode():
                raise RecordError(f"{file}: is not as it was written; {cure}")
        for part in (folder / "startup", folder / "local"):
            for file in sorted(part.iterdir()):
                if str(file.relative_to(folder)) not in kit:
                    raise RecordError(f"{file}: does not belong to the kit; {cure}")
        for path in (folder, folder / "startup", folder / "local", *(folder / p for p in kit)):
            if stat.S_IMODE(path.stat().st_mode) & 0o077:
                raise RecordError(f"{path}: others may read or change it; chmod go= {path}")


def command(kit: Path) -> Sequence[str]:
    """What starts a site's or the server's FLARE process, which is its own and no watchdog.

    Raises:
        ValueError: if NVIDIA FLARE is not installed.
    """
    if importlib.util.find_spec("nvflare") is None:
        raise ValueError("NVIDIA FLARE is not installed here; pip install 'silotune[nvflare]'")
    startup = kit / "startup"
    if (startup / "fed_client.json").is_file():
        own = json.loads((startup / "fed_client.json").read_text())
        module, file = "client.client_train", "fed_client.json"
        options = [f"uid={own['client']['fqsn']}"]
    else:
        module, file, options = "server.server_train", "fed_server.json", []
    return [
        *(sys.executable, "-u", "-m", f"nvflare.private.fed.app.{module}"),
        *("-m", str(kit.resolve()), "-s", file, "--set", "secure_train=true"),
        *(*options, "org=", "config_folder="),
    ]


def _is_host(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        labels = text.split(".")
        digits = labels[-1].isdigit()  # an address that is none
        return len(text) <= LONGEST_NAME and not digits and all(map(_LABEL.fullmatch, labels))
    return True


def _files(base: str) -> dict[str, str]:
    """Names of the credentials' files, as FLARE asks for them."""
    return {
        "ssl_private_key": f"{base}.key",
        "ssl_cert": f"{base}.crt",
        "ssl_root_cert": "rootCA.pem",
    }


def _shown(base: str, shown: Credentials) -> Kit:
    return {
        f"startup/{base}.key": shown.key,
        f"startup/{base}.crt": shown.certificate,
        "startup/rootCA.pem": shown.root,
    }


def _classes(allowed: str) -> dict[str, object]:
    return {
        "format_version": 2,
        "class_list_enforcement_mode": "enforce",
        "class_allow_list": [allowed],
    }


def _policy(resources: object, permissions: object) -> Kit:
    """What a job may do, and where FLARE's words go: to whoever started it."""
    console = {"class": "logging.StreamHandler", "stream": "ext://sys.stdout", "formatter": "line"}
    line = {"format": "%(asctime)s - %(name)s - %(levelname)s - %(message)s"}
    logs = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": line},
        "handlers": {"console": console},
        "loggers": {"root": {"level": "INFO", "handlers": ["console"]}},
    }
    return {
        "local/resources.json": _text(resources),
        "local/authorization.json": _text({"format_version": "1.0", "permissions": permissions}),
        "local/log_config.json": _text(logs),
    }


def _part(identity: str, path: str, **arguments: object) -> dict[str, object]:
    return {"id": identity, "path": path, "args": arguments}


def _text(content: object) -> str:
    return json.dumps(content, indent=1, sort_keys=True) + "\n"
