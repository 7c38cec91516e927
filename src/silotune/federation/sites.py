"""Sites: clients that are elsewhere, each with its records, its folder and its own policy."""

from __future__ import annotations

from dataclasses import dataclass

from silotune.core.names import case_twins, is_client_name


@dataclass(frozen=True)
class Sites:
    """Clients of which this machine knows the names alone. Give it in place of their tables.

    Attributes:
        names: of all that take part, in any order; as the transport knows them.

    Raises:
        ValueError: if a name cannot be a site's, or two are hard to tell apart.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        names = (self.names,) if isinstance(self.names, str) else tuple(self.names)
        if not names:
            raise ValueError("sites: there is none; name each site that takes part")
        if strange := [name for name in names if not is_client_name(name)]:
            raise ValueError(f"sites: {str(strange[0])[:40]!r} cannot be the name of a folder")
        if len(set(names)) < len(names) or case_twins(names):
            raise ValueError("sites: two of them have the same name, or one that differs by case")
        object.__setattr__(self, "names", tuple(sorted(names)))
