"""Whether the files of a saved adapter are whole."""

from __future__ import annotations

from pathlib import Path

from silotune.core import CorruptPayload, unpack
from silotune.core.files import DamagedError

from .native_io import OWN_WEIGHTS
from .peft_io import read_files


def check_saved(folder: Path) -> None:
    """That the files of an adapter can be read, in PEFT's format or in our own.

    Raises:
        DamagedError: naming the file that cannot.
    """
    own = folder / OWN_WEIGHTS
    try:
        if own.is_file():
            unpack(own.read_bytes())
        else:
            read_files(folder)
    except CorruptPayload as error:
        raise DamagedError(f"{own} cannot be read: {error}") from error
    except ValueError as error:
        raise DamagedError(str(error)) from error
