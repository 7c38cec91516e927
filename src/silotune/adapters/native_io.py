"""Our own format, for what PEFT has no words for: every tensor of the model by its key.

One file, ``adapter.silotune``: SHA-256, then safetensors with a header, as ``core.serialization``
packs it. Tensors are as they are trained, unscaled; the run's configuration says what they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from silotune.core import CorruptPayload, Factors, Key, pack, unpack, write_bytes

OWN_WEIGHTS = "adapter.silotune"


def save_own(folder: Path, factors: Factors) -> None:
    """Write an adapter folder; the file is replaced whole.

    Args:
        folder: made if absent.
        factors: all of the model's.

    Raises:
        RecordError: if the disk is full or the place cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_bytes(folder / OWN_WEIGHTS, pack(factors, {"format": "silotune adapter"}))


def load_own(folder: Path, expected: Mapping[Key, tuple[int, ...]]) -> Factors:
    """Read an adapter folder of ``save_own``.

    Args:
        folder: holds the file.
        expected: shapes of the model's factors.

    Raises:
        ValueError: if it cannot be read, or is not of this model.
    """
    file = folder / OWN_WEIGHTS
    try:
        factors, _ = unpack(file.read_bytes())
    except (OSError, CorruptPayload) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    found = {key: tuple(t.shape) for key, t in factors.items()}
    if differ := {key for key, _ in found.items() ^ dict(expected).items()}:
        raise ValueError(f"{folder} does not fit the model; tensors differ: {min(differ)}")
    return factors
