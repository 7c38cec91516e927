from pathlib import Path

import pytest

from silotune.config.names import ALIASES
from silotune.config.reference import reference
from silotune.config.schema import LEAVES

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_up_to_date():
    """If not: python -m silotune.config.reference > docs/configuration.md."""
    assert PAGE.read_text(encoding="utf-8") == reference()


@pytest.mark.parametrize("key", sorted(LEAVES))
def test_every_key_has_one_row(key):
    rows = [line for line in reference().splitlines() if line.startswith(f"| `{key}` |")]
    assert len(rows) == 1
    assert rows[0].count(" | ") == 3
    assert (LEAVES[key].description or "?") in rows[0]


def test_every_alias_is_listed():
    page = reference()
    assert all(f"| `{alias}` | `{home}` |" in page for alias, home in ALIASES.items())
