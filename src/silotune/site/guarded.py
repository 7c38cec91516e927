"""Guarded: whether only its owner, or root, can write a file or a folder of a site.

Whoever can write the folder that a thing lies in can put another in its place.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

OTHERS = stat.S_IWGRP | stat.S_IWOTH
READERS = stat.S_IRGRP | stat.S_IRWXO
"""A group may go through a home, to the socket in it, and no further."""


def check_guarded(path: Path) -> None:
    """Refuse a file or a folder that others can write, or put another in the place of.

    Args:
        path: of something that is there.

    Raises:
        PermissionError: naming what others can write, and the cure.
        OSError: if it cannot be looked at.
    """
    place = path.resolve()
    _check(place, os.stat(place))
    above = os.stat(place.parent)
    if not above.st_mode & stat.S_ISVTX:  # there, nobody moves what is another's
        _check(place.parent, above)


def check_private(home: Path) -> None:
    """The same of a home, in which others may read nothing either.

    Args:
        home: a folder that is there.

    Raises:
        PermissionError: naming it, and the cure.
        OSError: if it cannot be looked at.
    """
    check_guarded(home)
    if os.stat(home).st_mode & READERS:
        raise PermissionError(
            f"{home}: can be read by other users, and what lies in it is of the records; run: "
            f"chmod 700 {home}"
        )


def _check(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in (os.geteuid(), 0):
        raise PermissionError(
            f"{path}: belongs to another user, who could change what this site allows; act as that "
            "user (sudo -u), or own it yourself (chown)"
        )
    if found.st_mode & OTHERS:
        raise PermissionError(
            f"{path}: can be written by other users, who could change what this site allows; "
            f"run: chmod go-w {path}"
        )
