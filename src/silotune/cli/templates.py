"""The configurations that come with the package, for ``silotune init`` to copy."""

from collections.abc import Mapping
from importlib.resources import files


def bundled() -> Mapping[str, str]:
    """Name -> commented YAML."""
    folder = files("silotune.config") / "bundled"
    found = [f for f in folder.iterdir() if f.name.endswith(".yaml")]
    return {
        f.name.removesuffix(".yaml"): f.read_text(encoding="utf-8")
        for f in sorted(found, key=lambda f: f.name)
    }
