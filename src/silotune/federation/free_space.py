"""Free space: whether the disk of a run's folder has room."""

from __future__ import annotations

import shutil
from pathlib import Path

LEAST_SPACE = 50_000_000
"""Bytes that must be free: adapters and records are small, but a full disk stops any run."""


def free_space(path: Path) -> int:
    """Bytes that are free where a run's folder is, or will be.

    Raises:
        ValueError: if a run should not begin there.
    """
    place = next(p for p in (path, *path.resolve().parents) if p.exists())
    free = shutil.disk_usage(place).free
    if free < LEAST_SPACE:
        raise ValueError(
            f"folder: only {free // 1_000_000} MB are free at {place}; make room, or choose "
            "another folder (--output-dir)"
        )
    return free
