from pathlib import Path

from site_page import NEVER_SAID, reference

from silotune.config.site_sections import SiteConfig, section_in
from silotune.site.refusal import NEVER

PAGE = Path(__file__).parents[2] / "docs" / "site-file.md"


def test_the_page_is_up_to_date():
    """If not: python docs/build/site_page.py > docs/site-file.md."""
    assert PAGE.read_text(encoding="utf-8") == reference()


def keys(section, prefix=""):
    for name, field in section.model_fields.items():
        inner = section_in(field.annotation)
        yield from keys(inner, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]


def test_every_key_has_one_row():
    page = reference()
    found = list(keys(SiteConfig))
    assert len(found) > 25, "the keys are seen"
    assert [key for key in found if page.count(f"\n| `{key}` |") != 1] == []


def test_what_no_policy_allows_is_explained():
    assert set(NEVER_SAID) == set(NEVER)
