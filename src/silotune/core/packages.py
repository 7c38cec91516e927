"""Packages of others: which versions are installed. Each is read once a process."""

from functools import cache
from importlib.metadata import version


@cache
def installed(name: str) -> str:
    """The version of a package.

    Raises:
        PackageNotFoundError: if it is not installed.
    """
    return version(name)
