import re
from pathlib import Path

from configuration_page import reference, written

from silotune.config.keys import ALIASES
from silotune.config.schema import LEAVES
from silotune.methods import built_in
from silotune.methods.options import own_options
from silotune.methods.registry import takers

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_up_to_date():
    """If not: python docs/build/configuration_page.py > docs/configuration.md."""
    assert PAGE.read_text(encoding="utf-8") == reference()


def test_every_key_has_one_row():
    lines = reference().splitlines()
    rows = {key: [line for line in lines if line.startswith(f"| `{key}` |")] for key in LEAVES}
    assert {key: found for key, found in rows.items() if not is_row_of(key, found)} == {}


def is_row_of(key, rows) -> bool:
    """Whether it is one, of four cells, with what the key is described by."""
    told = LEAVES[key].description or "?"
    return len(rows) == 1 and rows[0].count(" | ") == 3 and told in rows[0]


def test_a_row_that_is_missing_or_untrue_would_be_seen():
    told = LEAVES["train.seed"].description
    assert is_row_of("train.seed", [f"| `train.seed` | integer | 0 | {told} |"])
    assert not is_row_of("train.seed", [])
    assert not is_row_of("train.seed", ["| `train.seed` | integer | 0 | Of something else. |"])


def test_every_alias_is_listed():
    page = reference()
    assert all(f"| `{alias}` | `{home}` |" in page for alias, home in ALIASES.items())


def test_the_default_of_an_option_is_told_for_every_method_that_has_it():
    lines = reference().splitlines()
    options = {option for method in built_in().values() for option in own_options(method)}
    wrong = {}
    for option in sorted(options):
        (row,) = [line for line in lines if line.startswith(f"| `method.{option}` ")]
        if (told := told_in(row)) != (meant := defaults_of(option)):
            wrong[option] = (told, meant)
    assert len(options) > 10, "the options are seen"
    assert wrong == {}


def told_in(row: str) -> dict[str, str]:
    told: dict[str, str] = {}
    for group in re.findall(r" For (.*?)\.(?= For | \|$)", row):
        methods, _, default = group.partition("; null = ")
        told |= dict.fromkeys(methods.split(" and "), default)
    return told


def defaults_of(option: str) -> dict[str, str]:
    meant = {m: own_options(built_in()[m])[option].default for m in takers(option)}
    return {m: "" if default is None else written(default) for m, default in meant.items()}
