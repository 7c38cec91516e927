"""The configurations that come with the package, to run or to copy."""

from collections.abc import Mapping
from pathlib import Path


def bundled() -> Mapping[str, Path]:
    """Name -> file of commented YAML."""
    folder = Path(__file__).with_name("bundled")
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
