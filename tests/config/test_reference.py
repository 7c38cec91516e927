import re
from pathlib import Path

import pytest

from silotune.config.keys import ALIASES
from silotune.config.reference import reference, written
from silotune.config.schema import LEAVES
from silotune.methods import built_in
from silotune.methods.options import own_options
from silotune.methods.registry import takers

OPTIONS = {o: takers(o) for m in built_in().values() for o in own_options(m)}
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


@pytest.mark.parametrize("option", OPTIONS)
def test_the_default_of_an_option_is_told_for_every_method_that_has_it(option):
    (row,) = [line for line in reference().splitlines() if line.startswith(f"| `method.{option}` ")]
    told = {}
    for group in re.findall(r" For (.*?)\.(?= For | \|$)", row):
        takers, _, default = group.partition("; null = ")
        told |= dict.fromkeys(takers.split(" and "), default)
    defaults = {taker: own_options(built_in()[taker])[option].default for taker in OPTIONS[option]}
    assert told == {
        t: "" if default is None else written(default) for t, default in defaults.items()
    }
